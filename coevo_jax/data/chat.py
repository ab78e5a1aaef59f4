"""From a conversation to tokens: the one place that decides which tokens an agent produced.

A conversation is the system prompt, the task, then turns of response and observation. Its tokens are joined
from pieces, exactly as a sampling engine sees them: the prompt up to where the agent speaks, the agent's own
tokens up to its end-of-turn token, then the glue, the observation and the glue up to where it speaks again.
The glue comes from the tokenizer's own chat template, by rendering dummy conversations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
from transformers import PreTrainedTokenizerFast

from coevo_jax.config import ConfigError
from coevo_jax.trajectory import Turn

SYSTEM, USER, AGENT, NEXT_USER, NEXT_AGENT = "qSYSq", "qUSERq", "qAGENTq", "qNEXTUSERq", "qNEXTAGENTq"


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """A tokenizer with the fixed tokens its chat template puts around the contents.

    Contents are encoded on their own and never yield a special token, whatever their text.
    """

    tokenizer: PreTrainedTokenizerFast
    before_system: tuple[int, ...]
    after_system: tuple[int, ...]  # between the system prompt and the task
    before_prompt: tuple[int, ...]  # replaces the two above when the system prompt is empty
    before_response: tuple[int, ...]  # between task or observation and the agent's response
    before_observation: tuple[int, ...]  # after the agent's end token, up to the observation
    end_id: int  # ends the agent's turn
    pad_id: int
    vocab_size: int

    def prompt_ids(self, system: str, prompt: str) -> list[int]:
        """Tokens of the conversation's start, up to where the agent speaks. An empty `system` is left out."""
        if system:
            start = [*self.before_system, *self._encode(system), *self.after_system]
        else:
            start = list(self.before_prompt)
        return [*start, *self._encode(prompt), *self.before_response]

    def response_ids(self, text: str) -> list[int]:
        """Tokens of an agent's turn, with the end token."""
        return [*self._encode(text), self.end_id]

    def observation_ids(self, observation: str) -> list[int]:
        """Tokens from behind the agent's end token to where it speaks again."""
        return [*self.before_observation, *self._encode(observation), *self.before_response]

    def decode_response(self, ids: Sequence[int]) -> str:
        """Text of an agent's turn without its end token, if it has one; other special tokens stay visible."""
        ids = list(ids)
        if ids and ids[-1] == self.end_id:
            ids.pop()
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def render(
    chat: ChatFormat, system: str, prompt: str, turns: Sequence[Turn], learned: Sequence[bool] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a conversation into tokens and the mask of those the agent produced.

    Returns tokens int32 [L] and agent_mask bool [L]. The end token of a turn is the agent's. The observation
    of the last turn is left out: the agent never saw it. Turns whose `learned` is False are not in the mask.
    """
    ids = chat.prompt_ids(system, prompt)
    mask = [False] * len(ids)
    for index, turn in enumerate(turns):
        response = chat.response_ids(turn.response)
        ids += response
        mask += [learned is None or learned[index]] * len(response)
        if index < len(turns) - 1:
            observation = chat.observation_ids(turn.observation)
            ids += observation
            mask += [False] * len(observation)
    return np.array(ids, np.int32), np.array(mask, bool)


def chat_format(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    """Derive the fixed tokens of a tokenizer's chat template.

    Raises ConfigError when the template does not join its messages piece by piece: when it refuses a system
    message, rewrites earlier turns, changes the contents, or ends a turn without a token of its own.
    """
    before_system, after_system, before_response = _split(tokenizer, [SYSTEM, USER], speak=True)
    before_prompt, same_before_response = _split(tokenizer, [USER], system=False, speak=True)
    *_, before_agent, after_agent = _split(tokenizer, [SYSTEM, USER, AGENT], speak=False)
    parts = _split(tokenizer, [SYSTEM, USER, AGENT, NEXT_USER, NEXT_AGENT, USER], speak=True)
    turn_glue = parts[3]  # from a response to the next observation
    pieces = [before_system, after_system, before_response, turn_glue, before_response, turn_glue]
    if parts != [*pieces, before_response] or {before_agent, same_before_response} != {before_response}:
        raise _unusable(tokenizer, "it renders a message differently depending on the messages around it")
    ids = {text: _encode_glue(tokenizer, text) for text in {*pieces, before_prompt, after_agent}}
    if not ids[turn_glue] or ids[turn_glue][0] not in tokenizer.added_tokens_decoder:
        raise _unusable(tokenizer, f"no special token ends the agent's turn (found {turn_glue!r})")
    if ids[after_agent][:1] != ids[turn_glue][:1]:
        raise _unusable(
            tokenizer, f"the last turn ends with {after_agent!r}, an earlier one with {turn_glue!r}"
        )
    end_id, pad_id = ids[turn_glue][0], tokenizer.pad_token_id
    return ChatFormat(
        tokenizer=tokenizer,
        before_system=ids[before_system],
        after_system=ids[after_system],
        before_prompt=ids[before_prompt],
        before_response=ids[before_response],
        before_observation=ids[turn_glue][1:],
        end_id=end_id,
        pad_id=pad_id if isinstance(pad_id, int) else end_id,
        vocab_size=len(tokenizer),
    )


def _split(
    tokenizer: PreTrainedTokenizerFast, contents: list[str], *, speak: bool, system: bool = True
) -> list[str]:
    """Render a dummy conversation and return the texts before, between and behind its contents."""
    roles = ["system"] * system + ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=speak)
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        raise _unusable(tokenizer, f"rendering {[m['role'] for m in messages]} fails: {error}") from None
    glue = []
    for content in contents:
        before, found, text = str(text).partition(content)
        if not found:
            raise _unusable(
                tokenizer, f"it leaves out or changes a message of {[m['role'] for m in messages]}"
            )
        glue.append(before)
    return [*glue, str(text)]


def _encode_glue(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _unusable(tokenizer: PreTrainedTokenizerFast, problem: str) -> ConfigError:
    return ConfigError(
        f"{tokenizer.name_or_path or 'tokenizer'}: its chat template cannot be used: {problem}"
    )
