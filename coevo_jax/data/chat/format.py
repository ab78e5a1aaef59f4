"""The conversion of a conversation to tokens: the one place that decides which tokens an agent produced.

A conversation is the system prompt, the task, then turns of response and observation. Its tokens are joined
from pieces, exactly as a sampling engine sees them: the prompt up to where the agent speaks, the agent's own
tokens up to its end-of-turn token, then the glue, the observation and the glue up to where it speaks again.
The glue comes from the tokenizer's own chat template (`chat_template.py`). Where a template only appends, the
pieces are the very tokens of its rendering of the whole, for contents without white space around them; where
it rewrites the past (Qwen3's old thoughts, Mistral's moving system prompt), the past stays as it was played.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from transformers import PreTrainedTokenizerFast

from coevo_jax.data.chat.sections import Place, Sections, make_sections
from coevo_jax.data.chat.template import AGENT, END_THINK, THINK, Glue, control_tokens, read_glue, unusable
from coevo_jax.methods.marks import marked
from coevo_jax.trajectory import Turn


@dataclass(frozen=True, kw_only=True, eq=False)
class ChatFormat:
    """A tokenizer with the fixed tokens its chat template puts around the contents.

    Contents never yield a control token, whatever their text, and are never trimmed. They are encoded
    together with the text that the template puts next to them, up to the control tokens around both.
    """

    tokenizer: PreTrainedTokenizerFast
    sections: Sections
    glue: Glue
    before_system: tuple[str | int, ...]  # control tokens, and the text between them
    after_system: tuple[str | int, ...]  # between the system prompt and the task
    before_prompt: tuple[str | int, ...]  # replaces the two above when the system prompt is empty
    before_response: tuple[str | int, ...]  # between task or observation and the agent's response
    before_observation: tuple[str | int, ...]  # after the agent's end token, up to the observation
    end_id: int  # ends the agent's turn
    pad_id: int
    vocab_size: int
    response_start: str = ""  # what decoding a turn of `response_ids` gives before its words

    def prompt_ids(self, system: str, prompt: str) -> list[int]:
        """The tokens of a conversation's start, up to the agent's turn; an empty `system` is left out."""
        start = (*self.before_system, system, *self.after_system) if system else self.before_prompt
        return self.sections.join([*start, prompt, *self.before_response], Place.START)

    def shared_ids(self, system: str, marks: Sequence[str] = ("",)) -> list[int]:
        """Tokens that the prompts of all tasks begin with: the system prompt, and what leads to the task.

        Of several marks, what the prompts under all of them begin with.
        """
        tasks = [marked(task, mark) for mark in marks for task in ("A task", "(1)", "\n")]
        prompts = [self.prompt_ids(system, task) for task in tasks]
        alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*prompts, strict=False))
        return [ids[0] for ids in alike]

    def response_ids(self, text: str) -> list[int]:
        """Tokens of an agent's turn, with the end token.

        A text without thoughts gets those the template writes for it (Qwen3's empty ones).
        """
        behind_control = isinstance(self.before_response[-1], int)
        place = Place.BEHIND if behind_control else Place.INSIDE
        return [*self.sections.encode(self._written(text), place), self.end_id]

    def observation_ids(self, observation: str) -> list[int]:
        """The tokens between the end of an agent's turn and the start of its next one."""
        return self.sections.join([*self.before_observation, observation, *self.before_response])

    def decode_response(self, ids: Sequence[int]) -> str:
        """Text of an agent's turn without its end token, if it has one; other special tokens stay visible.

        What the template itself writes around an agent's words is no part of the text; thoughts that the
        prompt opens are, from `<think>` on. So `response_ids` writes the turn's text again, not more.
        """
        ids = list(ids)
        ended = bool(ids) and ids[-1] == self.end_id
        text = self.text_of(ids[:-1] if ended else ids)
        if ended:
            text = text.removesuffix(self.glue.trail)
        words = text.removeprefix(self.response_start)
        if self.glue.thoughts_at is None:
            return words
        # Words behind no thoughts are themselves, unless they would then be taken for thoughts.
        plain = text.startswith(self.response_start) and not words.startswith(THINK)
        return words if plain and not self._goes_on(words) else self.glue.opened + text

    def text_of(self, ids: Sequence[int]) -> str:
        """Text of some of an agent's tokens as they are: alone, they would lose a space in front."""
        context = self.sections.join(self.before_response, Place.INSIDE)
        decode = self.tokenizer.backend_tokenizer.decode
        prompt = decode(context, skip_special_tokens=False)
        return decode([*context, *ids], skip_special_tokens=False).removeprefix(prompt)

    def ids_from(self, first: int) -> list[int]:
        """Token ids from `first` on that a content, the template or padding can yield."""
        parts = (*self.before_system, *self.after_system, *self.before_prompt)
        parts += (*self.before_response, *self.before_observation, self.end_id, self.pad_id)
        found = (id for id in self.tokenizer.get_vocab().values() if id >= first)
        return sorted(id for id in found if id not in self.sections.forbidden or id in parts)

    def _written(self, text: str) -> str:
        """The agent's text with what the template writes around it, behind the generation prompt."""
        opened, lead = self.glue.opened, self.glue.lead
        if self._goes_on(text):
            return text + self.glue.trail
        if self.glue.thoughts_at is not None and text.startswith(THINK):
            if text.startswith(opened):
                lead = "" if opened else lead[: self.glue.thoughts_at - len(self.glue.before_response)]
                return lead + text.removeprefix(opened) + self.glue.trail
            if END_THINK not in opened:  # it has them, with other white space
                return text.removeprefix(THINK) + self.glue.trail
        return lead + text + self.glue.trail

    def _goes_on(self, text: str) -> bool:
        """Whether a text ends thoughts that it does not begin: those that the prompt opens."""
        opened = self.glue.opened
        return bool(opened) and END_THINK not in opened and END_THINK in text and not text.startswith(THINK)


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

    The token that ends a turn is the template's, whatever `eos_token` is. Templates without a system role get
    the system prompt in front of the task, separated by a blank line. A template's clock stands still.

    Raises:
      ConfigError: no fixed tokens give the template's conversation: it writes something else around each
        turn, changes the contents, or ends a turn without a token of its own.
    """
    glue = read_glue(tokenizer)
    control_ids = control_tokens(tokenizer, glue)
    sections = make_sections(tokenizer, control_ids)
    end_id, pad_id = control_ids[glue.end], tokenizer.pad_token_id
    chat = ChatFormat(
        tokenizer=tokenizer,
        sections=sections,
        glue=glue,
        before_system=sections.cut(glue.before_system),
        after_system=sections.cut(glue.after_system),
        before_prompt=sections.cut(glue.before_prompt),
        before_response=sections.cut(glue.before_response),
        before_observation=sections.cut(glue.end + glue.before_observation)[1:],
        end_id=end_id,
        pad_id=pad_id if isinstance(pad_id, int) else end_id,
        vocab_size=1 + max(tokenizer.get_vocab().values()),  # more than it has tokens, where ids are left out
    )
    start, found, rest = chat.text_of(chat.response_ids(AGENT)[:-1]).removesuffix(glue.trail).partition(AGENT)
    if not found or rest:
        raise unusable(tokenizer, f"decoding {AGENT!r} in its place gives {start + found + rest!r}")
    return replace(chat, response_start=start)
