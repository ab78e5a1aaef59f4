"""What a conversation's tokens are, from its text and the tokenizer's chat template alone.

Each stretch that no agent wrote is the end of a small conversation of its own: the template is rendered
around placeholders, the texts are put in their places, and the whole is encoded at once. A tokenizer cuts a
text at its special tokens, so the stretch behind the last end of a turn is that of the whole conversation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerFast

from coevo_jax.audit.check import NotCheckable

ASKED, SAID, TOLD, SYSTEM = "zASKEDz", "zSAIDz", "zTOLDz", "zSYSTEMz"
DATE = "26 Jul 2024"  # what templates that ask for a date take where there is no clock
THINK, END_THINK = "<think>", "</think>"
NO_THOUGHTS = f"\n{END_THINK}\n\n"  # behind thoughts that are opened where no turn is shown with any
SEPARATOR = "\n\n"  # of the system prompt in front of the task, where a template has no place for one


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendering:
    """A tokenizer with its template, and the system prompt of every conversation."""

    tokenizer: PreTrainedTokenizerFast
    system: str

    @cached_property
    def _turn(self) -> tuple[str, str, str]:
        """What stands before, between and behind an agent's words and the answer to them."""
        text = self._render([("user", ASKED), ("assistant", SAID), ("user", TOLD)], speak=True)
        before, between, after = _split(text, [SAID, TOLD])
        return before, between, after

    @cached_property
    def end(self) -> str:
        """The special token that ends an agent's turn."""
        found = _first_of(self._turn[1], self._special)
        if found is None:
            raise NotCheckable(f"the chat template ends a turn without a special token: {self._turn[1]!r}")
        return found

    @cached_property
    def end_id(self) -> int:
        return self._special[self.end]

    @cached_property
    def lead(self) -> str:
        """What the template writes between where the agent speaks and its words."""
        asked = self._render([("user", ASKED)], speak=True)
        said = self._render([("user", ASKED), ("assistant", SAID)], speak=False)
        if said.startswith(asked):
            return said.removeprefix(asked).partition(SAID)[0]
        if not self.opened or not said.startswith(asked.removesuffix(self.opened)):
            raise NotCheckable("the chat template opens a turn otherwise than it asks for one")
        return "" if END_THINK in self.opened else NO_THOUGHTS

    @cached_property
    def opened(self) -> str:
        """The thoughts that the template opens where it asks an agent to speak; "" where it opens none."""
        plain = self._render([("user", ASKED)], speak=False)
        _, found, rest = self._render([("user", ASKED)], speak=True).removeprefix(plain).partition(THINK)
        return found + rest

    def _behind(self, text: str) -> str:
        """An agent's text as it stands behind where it was asked to speak: with what the template writes."""
        if (
            self.opened and END_THINK not in self.opened and END_THINK in text
        ):  # thoughts, here or there begun
            shared = self.opened if text.startswith(self.opened) else THINK
            return text.removeprefix(shared)
        lead = self.lead.partition(THINK)[0] if text.startswith(THINK) else self.lead
        return lead + text

    @cached_property
    def trail(self) -> str:
        """What it writes between the agent's words and the end of the turn."""
        return self._turn[1].partition(self.end)[0]

    @cached_property
    def _special(self) -> Mapping[str, int]:
        return {
            token.content: id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }

    def opening(self, task: str) -> list[int] | None:
        """Tokens of a conversation up to where the agent speaks; None where a text holds a special token."""
        before, after = self._opening
        return self._encode(before + task + after, [task])

    @cached_property
    def _opening(self) -> tuple[str, str]:
        plain = self._render([("user", ASKED)], speak=True)
        if not self.system:
            before, after = _split(plain, [ASKED])
            return before, after
        try:
            text = self._render([("system", SYSTEM), ("user", ASKED)], speak=True)
            start, between, after = _split(text, [SYSTEM, ASKED])
            return start + self.system + between, after
        except (NotCheckable, jinja2.TemplateError, ValueError, TypeError):  # it says that it knows none
            before, after = _split(plain, [ASKED])
            return before + self.system + SEPARATOR, after

    @lru_cache(maxsize=4096)  # noqa: B019 (one rendering lives as long as an audit)
    def answer(self, observation: str) -> tuple[int, ...] | None:
        """Tokens from behind the end of a turn to where the agent speaks again; None as in `opening`."""
        before, between, after = self._turn
        text = before + SAID + between + observation + after
        ids = self._encode(text, [observation])
        return None if ids is None else tuple(ids[ids.index(self.end_id, self._before_said) + 1 :])

    @cached_property
    def _before_said(self) -> int:
        """Places before the agent's words in `answer`: the end token may close the user's turn, too."""
        return len(self.tokenizer.encode(self._turn[0], add_special_tokens=False))

    def spoken(self, text: str) -> list[int] | None:
        """Tokens of an agent's turn that says a text, to the end of the turn; None as in `opening`.

        Raises:
          NotCheckable: the text and what stands before it share a token.
        """
        before = self._render([("user", ASKED)], speak=True)
        given = self._encode(before, [])
        whole = self._encode(before + self._behind(text) + self.trail + self.end, [text])
        if given is None or whole is None:
            return None
        if whole[: len(given)] != given:
            raise NotCheckable(f"what stands before a turn joins its first word: {text[:20]!r}")
        return whole[len(given) :]

    def words(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text of an agent's tokens, decoded behind what stood before them, without their end token."""
        ended = bool(len(ids)) and ids[-1] == self.end_id
        own = list(ids[:-1] if ended else ids)
        text = self._decode([*before, *own]).removeprefix(self._decode(list(before)))
        return text.removesuffix(self.trail) if ended and self.trail else text

    def said(self, text: str) -> set[str]:
        """What decoding may give for a turn's text: with or without what the template writes before it.

        Some tokenizers (Mistral's) put a space of their own in front of that.
        """
        behind = self._behind(text)
        return {text, self.lead + text, behind, f" {behind}" if self.lead else text}

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)

    def _encode(self, text: str, contents: Sequence[str]) -> list[int] | None:
        """Tokens of a text, unless a content looks like a special token: a template alone may write those."""
        if any(token in content for content in contents for token in self._special):
            return None
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def _render(self, messages: Sequence[tuple[str, str]], *, speak: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                tokenize=False,
                add_generation_prompt=speak,
                date_string=DATE,
            )
        )


def open_rendering(folder: Path, system: str) -> Rendering:
    """The rendering by a run's own tokenizer."""
    if not (folder / "tokenizer.json").is_file():
        raise NotCheckable(f"{folder}: no tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return Rendering(tokenizer=tokenizer, system=system)


def _split(text: str, contents: Sequence[str]) -> tuple[str, ...]:
    parts = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found:
            raise NotCheckable(f"the chat template leaves out or changes a message ({content})")
        parts.append(before)
    return (*parts, text)


def _first_of(text: str, words: Mapping[str, int]) -> str | None:
    places = {text.find(word): word for word in sorted(words, key=len) if word in text}
    return places[min(places)] if places else None
