"""A request's messages as tokens: exactly what a roll-out of the same conversation would have read.

In a roll-out, the past is the very tokens that were played, never their text encoded again. Over HTTP it
comes back as text. So a server remembers what it wrote as the answer to which tokens, and puts those tokens
where a later request has that answer in that place; other answers are encoded as an expert's turns are.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.methods.marks import marked
from coevo_jax.openai_server.fields import Message
from coevo_jax.openai_server.refusal import Refusal

REMEMBERED = 4096  # answers


class Memory:
    """The tokens of the newest answers, by the tokens that they answered and their text."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._answers: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, prompt: Sequence[int], text: str, tokens: Sequence[int]) -> None:
        with self._lock:
            self._answers[_key(prompt, text)] = np.array(tokens, np.int32)
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)

    def find(self, prompt: Sequence[int], text: str) -> list[int] | None:
        """The tokens of the answer, where it was remembered."""
        with self._lock:
            key = _key(prompt, text)
            found = self._answers.get(key)
            if found is None:
                return None
            self._answers.move_to_end(key)
            return found.tolist()


def _key(prompt: Sequence[int], text: str) -> bytes:
    digest = hashlib.sha256(np.array(prompt, np.int32).tobytes())
    digest.update(text.encode())
    return digest.digest()


def conversation_ids(
    chat: ChatFormat, messages: Sequence[Message], memory: Memory, mark: str = ""
) -> list[int]:
    """The tokens of a conversation up to where the agent speaks.

    Args:
      messages: a system prompt or none, then the user's and the agent's in turn; the user's is the last.
      mark: that the user's first message, the task, is put under.

    Raises:
      Refusal: another order of messages, or text that cannot be encoded.
    """
    system, rest = _opening(messages)
    ids = chat.prompt_ids(system, marked(rest[0].text, mark))
    for answer, reply in zip(rest[1::2], rest[2::2], strict=True):
        ids = _with_answer(chat, ids, answer, memory)
        # A turn that stopped at the end of its action's line is closed for the agent.
        ids += [] if ids[-1] == chat.end_id else [chat.end_id]
        ids += chat.observation_ids(reply.text)
    return ids


def _with_answer(chat: ChatFormat, ids: list[int], answer: Message, memory: Memory) -> list[int]:
    if answer.prompt_token_ids is not None and answer.generation_token_ids:
        told = [*answer.prompt_token_ids, *answer.generation_token_ids]
        if max(told) >= chat.vocab_size:
            raise _refused(f"found the token id {max(told)}, expected ids below {chat.vocab_size}")
        return told
    text = answer.text
    remembered = memory.find(ids, text)
    return ids + (chat.response_ids(text) if remembered is None else remembered)


def _opening(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system prompt, "" for none, and the messages behind it."""
    leads = messages[0].role in ("system", "developer")
    rest = messages[1:] if leads else messages
    expected = ["user", "assistant"] * (len(rest) // 2) + ["user"]
    found = [message.role for message in rest]
    if found != expected:
        raise _refused(
            f"found the roles {', '.join(message.role for message in messages)}; expected a system message "
            "or none, then user and assistant in turn, user last: so the agent's conversations are"
        )
    return (messages[0].text if leads else ""), rest


def _refused(words: str) -> Refusal:
    return Refusal(status=400, message=f"messages: {words}", param="messages")
