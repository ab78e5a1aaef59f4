"""The keys of a row and what they hold, for every known layout; a new layout is one more declaration.

A row is in the layout whose keys it has, not in one that a single key suggests. Null columns, which merged
sets are full of, count as missing. Layouts that hold nothing to imitate are declared, too, with the reason.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from coevo_jax.data.formats import LAYOUT_NAMES
from coevo_jax.data.interchange.messages import EMPTY

ETO_SFT, AGENTTRAJ, MESSAGES, ETO_PAIRS = LAYOUT_NAMES


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One layout of rows: the keys of its parts, "" where it has no such part."""

    name: str  # in words
    format: str  # of FORMATS, the nearest to it
    whole: str = ""  # a conversation, or what stands before the answers
    before: tuple[str, ...] = ()  # the prompt: messages, or texts that are joined by line breaks
    answer: str = ""  # the agent's answer to the prompt
    history: str = ""  # earlier rounds of a prompt of texts; the row may do without
    chosen: str = ""
    rejected: str = ""
    repeated: tuple[str, ...] = ()  # keys that say again what the other parts say; checked, then left out
    optional: tuple[str, ...] = ()
    refused: str = ""  # why rows like this are not read

    @property
    def keys(self) -> frozenset[str]:
        single = (self.whole, self.answer, self.history, self.chosen, self.rejected)
        return frozenset(key for key in (*single, *self.before, *self.repeated, *self.optional) if key)

    @property
    def required(self) -> frozenset[str]:
        return self.keys - {self.history, *self.optional}


SHAPES = (
    Shape(name="conversations (ETO, AgentGym, ShareGPT)", format=ETO_SFT, whole="conversations"),
    Shape(
        name="conversations with their prompt",
        format=ETO_SFT,
        whole="conversations",
        repeated=("prompt",),
    ),
    Shape(name="messages (OpenAI, TRL, Axolotl)", format=MESSAGES, whole="messages"),
    Shape(
        name="messages with their prompt (UltraChat)", format=MESSAGES, whole="messages", repeated=("prompt",)
    ),
    Shape(
        name="prompt and completion (TRL, OpenAI)", format=MESSAGES, before=("prompt",), answer="completion"
    ),
    Shape(name="prompt and response", format=MESSAGES, before=("prompt",), answer="response"),
    Shape(
        name="query and response (ms-swift)",
        format=MESSAGES,
        before=("query",),
        answer="response",
        history="history",
    ),
    Shape(
        name="instruction and output (Alpaca)",
        format=MESSAGES,
        before=("instruction", "input"),
        answer="output",
        history="history",
        optional=("input",),
    ),
    Shape(
        name="preferences with their prompt (ETO, TRL)",
        format=ETO_PAIRS,
        before=("prompt",),
        chosen="chosen",
        rejected="rejected",
    ),
    Shape(
        name="preferences with prompt and messages (UltraFeedback)",
        format=ETO_PAIRS,
        before=("prompt",),
        chosen="chosen",
        rejected="rejected",
        repeated=("messages",),
    ),
    Shape(
        name="preferences with an implicit prompt (TRL)",
        format=ETO_PAIRS,
        chosen="chosen",
        rejected="rejected",
    ),
    Shape(
        name="preferences after conversations (LLaMA-Factory)",
        format=ETO_PAIRS,
        before=("conversations",),
        chosen="chosen",
        rejected="rejected",
    ),
    Shape(
        name="preferences after messages (LLaMA-Factory, Axolotl)",
        format=ETO_PAIRS,
        before=("messages",),
        chosen="chosen",
        rejected="rejected",
    ),
    Shape(
        name="preferences after an instruction (Alpaca)",
        format=ETO_PAIRS,
        before=("instruction", "input"),
        chosen="chosen",
        rejected="rejected",
        history="history",
        optional=("input",),
    ),
    Shape(
        name="chosen and rejected messages (LLaMA-Factory v1)",
        format=ETO_PAIRS,
        chosen="chosen_messages",
        rejected="rejected_messages",
    ),
    Shape(
        name="messages and rejected messages (ms-swift)",
        format=ETO_PAIRS,
        chosen="messages",
        rejected="rejected_messages",
    ),
    Shape(
        name="messages and a rejected response (ms-swift)",
        format=ETO_PAIRS,
        whole="messages",
        rejected="rejected_response",
    ),
    Shape(
        name="preferred and non-preferred output (OpenAI)",
        format=ETO_PAIRS,
        before=("input",),
        chosen="preferred_output",
        rejected="non_preferred_output",
    ),
    Shape(
        name="a prompt alone (TRL, GRPO)",
        format=MESSAGES,
        before=("prompt",),
        refused="it holds no answer of the agent",
    ),
    Shape(
        name="plain text (pre-training)",
        format=MESSAGES,
        whole="text",
        refused="it does not say which part the agent wrote",
    ),
    Shape(
        name="completions with labels (TRL's stepwise supervision)",
        format=MESSAGES,
        before=("prompt",),
        answer="completions",
        optional=("labels",),
        refused="steps are judged one by one, and a turn is imitated as a whole",
    ),
    Shape(
        name="ranked answers (Nectar)",
        format=MESSAGES,
        before=("prompt",),
        answer="answers",
        refused="more than two answers are ranked; write one row a pair",
    ),
    Shape(
        name="tokens",
        format=MESSAGES,
        whole="input_ids",
        optional=("labels",),
        refused="it holds tokens of another tokenizer, not text",
    ),
)
# Columns that many sets keep beside messages, and that say nothing new there.
BESIDE_MESSAGES = frozenset(
    [
        "text",
        "input_ids",
        "labels",
        "answers",
        "completions",
        "instruction",
        "input",
        "output",
        "query",
        "response",
        "history",
    ]
)
KEYS = frozenset(chain.from_iterable(shape.keys for shape in SHAPES))
UNREADABLE = BESIDE_MESSAGES - {"instruction", "input", "output", "query", "response", "history"}


def _by_keys(shapes: Iterable[Shape]) -> dict[frozenset[str], Shape]:
    table: dict[frozenset[str], Shape] = {}
    for shape in shapes:
        without = [shape.required]
        for key in shape.keys - shape.required:
            without += [keys | {key} for keys in without]
        for keys in without:
            if table.setdefault(keys, shape) is not shape:
                raise AssertionError(f"{shape.name} and {table[keys].name} have the same keys")
    return table


BY_KEYS = _by_keys(SHAPES)


def find_shape(row: Mapping[str, Any]) -> Shape | None:
    """The layout of a row by all of its keys; None where no key of any layout is in it.

    Raises:
      ValueError: the keys make no layout together, or the layout holds nothing to imitate.
    """
    there = frozenset(key for key, value in row.items() if value is not None and key in KEYS)
    if (shape := BY_KEYS.get(there)) is None:
        filled = frozenset(key for key in there if row[key] not in EMPTY)
        beside = (frozenset(), UNREADABLE, BESIDE_MESSAGES)
        tries = (keys - less for keys in (there, filled) for less in beside)
        shape = next((BY_KEYS[keys] for keys in tries if keys in BY_KEYS), None)
    if shape is None:
        named = sorted(there - BESIDE_MESSAGES)
        if len(named) > 1:
            raise ValueError(f"found {_list(named)} in one row, which is no layout known here")
        return None
    if shape.refused:
        raise ValueError(f"found {shape.name}, which cannot be imitated: {shape.refused}")
    return shape


def _list(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"
