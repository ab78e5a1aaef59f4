"""The fixed texts that a chat template writes around contents, found with dummy conversations.

A template is a program that may rewrite the whole conversation at every turn: drop old thoughts (Qwen3), move
the system prompt (Mistral), ask for today's date (Llama 3.2). Training and sampling need one text that only
grows. `read_glue` finds it, or says why there is none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerFast

from coevo_jax.config.strict import ConfigError

SYSTEM, USER, AGENT, NEXT_USER, NEXT_AGENT, LAST_USER = (
    "qSYSq",
    "qUSERq",
    "qAGENTq",
    "qNEXTUSERq",
    "qNEXTAGENTq",
    "qLASTUSERq",
)
SYSTEM_SEPARATOR = "\n\n"  # between system prompt and task where the template knows no system prompt
THINK, END_THINK = "<think>", "</think>"
NO_MORE_THOUGHTS = f"\n{END_THINK}\n\n"  # behind thoughts that the prompt opens and no turn is shown with
CHANNEL = "<|channel"  # Gemma 4's <|channel> and gpt-oss's <|channel|>
DATE = {"%d": "26", "%-d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24"} | {
    "%a": "Fri",
    "%A": "Friday",
    "%H": "00",
    "%M": "00",
    "%S": "00",
}
"""What a template's clock says: the date that Llama 3's templates take where there is no clock."""
FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace({code!r}, {value!r})" for code, value in DATE.items())
    + " }}{%- endmacro %}\n"  # the newline keeps the template at the start of a line
)


@dataclass(frozen=True, kw_only=True)
class Glue:
    """The fixed texts of a template, in the order in which a conversation needs them."""

    before_system: str
    after_system: str  # between the system prompt and the task
    before_prompt: str  # replaces the two above when there is no system prompt
    before_response: str  # the generation prompt, between task or observation and the agent's turn
    lead: str  # what the agent writes before its words: Llama 2's space, Qwen3's empty thoughts
    trail: str  # what it writes behind them
    end: str  # the token that ends its turn
    before_observation: str  # behind `end`

    @property
    def thoughts_at(self) -> int | None:
        """The index in `before_response` + `lead` where the thoughts start; None where there are none."""
        at = (self.before_response + self.lead).find(THINK)
        return None if at < 0 else at

    @property
    def opened(self) -> str:
        """The thoughts in the generation prompt, which a turn's text begins with: open, or closed already."""
        return "" if self.thoughts_at is None else self.before_response[self.thoughts_at :]


def read_glue(tokenizer: PreTrainedTokenizerFast) -> Glue:
    """Read the fixed texts off a tokenizer's chat template.

    The text only grows where the template's own does not: every turn is closed and opened as one that has
    just been played, with its thoughts; the system prompt stays before the task. A template without a system
    role, or that leaves the system prompt out, gets it in front of the task, separated by a blank line.

    Raises:
      ConfigError: there is no such text: the template changes the contents, writes something else around each
        turn, or ends a turn without a token of its own.
    """
    _refuse_channels(tokenizer)
    before_prompt, before_response = _split(tokenizer, [USER], speak=True)
    _, opened, closed = _split(tokenizer, [USER, AGENT], speak=False)
    contents = [USER, AGENT, NEXT_USER, NEXT_AGENT, LAST_USER]
    start, header, turn, next_header, next_turn, speak = _split(tokenizer, contents, speak=True)
    grown = (start, next_header, next_turn, speak) == (before_prompt, header, turn, before_response)
    prompted = before_response.removeprefix(header).strip()
    if opened == header and prompted.startswith(
        THINK
    ):  # QwQ, R1's distillates: no turn is shown with thoughts
        opened = before_response + ("" if prompted.endswith(END_THINK) else NO_MORE_THOUGHTS)
    # A turn of the past may lack thoughts, never anything that a turn just played does not have.
    if not opened.startswith(before_response):
        raise unusable(
            tokenizer,
            f"add_generation_prompt writes {before_response!r}, a turn just played begins {opened!r}",
        )
    if not grown or not opened.startswith(header):
        raise unusable(tokenizer, "it renders a message differently depending on the messages around it")
    lead = opened.removeprefix(before_response)
    if _find_structure(tokenizer, lead) is not None:
        raise unusable(tokenizer, f"add_generation_prompt leaves out {lead!r}, which opens the agent's turn")
    found = _find_structure(tokenizer, closed)
    if found is None:
        raise unusable(tokenizer, f"no special token ends the agent's turn (found {closed!r})")
    through_end = closed[: found.end()]
    if not turn.startswith(through_end):
        raise unusable(tokenizer, f"the last turn ends with {closed!r}, an earlier one with {turn!r}")
    before_system, after_system = _system_glue(tokenizer, before_prompt, header, turn, before_response)
    return Glue(
        before_system=before_system,
        after_system=after_system,
        before_prompt=before_prompt,
        before_response=before_response,
        lead=lead,
        trail=closed[: found.start()],
        end=found[0],
        before_observation=turn.removeprefix(through_end),
    )


def _refuse_channels(tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse thoughts that control tokens open and close: a turn is text, and text yields none."""
    if CHANNEL in default_template(tokenizer):
        raise unusable(
            tokenizer,
            f"its thoughts are a channel between control tokens ({CHANNEL}…, as Gemma 4's and gpt-oss's "
            "are), which the text of a turn cannot hold; expected thoughts as text, as <think>",
        )


def control_tokens(tokenizer: PreTrainedTokenizerFast, glue: Glue) -> Mapping[str, int]:
    """The tokens that structure a conversation, and that no content may produce, by their text.

    All special tokens, and those the template writes even if the tokenizer does not call them special;
    thoughts and white space are content wherever they stand.
    """
    texts = "".join([glue.before_system, glue.after_system, glue.before_prompt, glue.before_response])
    texts += glue.end + glue.before_observation
    return {
        token.content: id
        for id, token in tokenizer.added_tokens_decoder.items()
        if token.special or (_is_structure(token.content) and token.content in texts)
    }


def unusable(tokenizer: PreTrainedTokenizerFast, problem: str) -> ConfigError:
    """The error for a chat template that cannot be used."""
    return ConfigError(
        f"{tokenizer.name_or_path or 'tokenizer'}: its chat template cannot be used: {problem}"
    )


def default_template(tokenizer: PreTrainedTokenizerFast) -> str:
    """The template of a plain conversation, of one or of several by name (`load_tokenizer` checks them)."""
    found: Any = tokenizer.chat_template
    return found["default"] if isinstance(found, dict) else found


def _system_glue(
    tokenizer: PreTrainedTokenizerFast, before_prompt: str, header: str, turn: str, before_response: str
) -> tuple[str, str]:
    try:
        before, after, speak = _split(tokenizer, [SYSTEM, USER], speak=True, system=True)
    except ConfigError:
        return before_prompt, SYSTEM_SEPARATOR
    try:
        parts = _split(tokenizer, [SYSTEM, USER, AGENT, NEXT_USER], speak=True, system=True)
    except ConfigError:  # it moves the system prompt away from the task once there are turns
        parts = [before, after, header, turn, speak]
    if parts != [before, after, header, turn, before_response] or speak != before_response:
        raise unusable(tokenizer, "it renders the turns differently when there is a system prompt")
    return before, after


def _split(
    tokenizer: PreTrainedTokenizerFast, contents: Sequence[str], *, speak: bool, system: bool = False
) -> list[str]:
    """Render a dummy conversation and return the texts before, between and behind its contents."""
    roles = ["system"] * system + ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    shown = [message["role"] for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=speak,
            chat_template=FIXED_CLOCK + default_template(tokenizer),
        )
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        raise unusable(tokenizer, f"rendering {shown} fails: {error}") from None
    glue = []
    for content in contents:
        before, found, text = str(text).partition(content)
        if not found:
            raise unusable(tokenizer, f"it leaves out or changes a message of {shown}")
        glue.append(before)
    return [*glue, str(text)]


def _find_structure(tokenizer: PreTrainedTokenizerFast, text: str) -> re.Match[str] | None:
    """The first token in a text that structures the conversation."""
    words = [token.content for token in tokenizer.added_tokens_decoder.values()]
    structure = sorted(filter(_is_structure, words), key=len, reverse=True)
    return re.search("|".join(map(re.escape, structure)), text) if structure else None


def _is_structure(word: str) -> bool:
    return bool(word.strip()) and word not in (THINK, END_THINK)
