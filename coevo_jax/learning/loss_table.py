"""The losses as a table: what each one's docstring and signature say, for `--list` and the README."""

import inspect
import re
from dataclasses import dataclass

from coevo_jax.config.idle import WITHOUT_REFERENCE
from coevo_jax.learning.loss_calls import Option, loss_parameters
from coevo_jax.learning.loss_options import WITH_DIVERGENCE
from coevo_jax.learning.loss_terms import PreferenceLoss
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES

PAPER = re.compile(r"arXiv (\d{4}\.\d{4,5})(?:, ((?:eq\.|section|table) \d+(?:\.\d+)?(?: to \d+)?))?")


@dataclass(frozen=True, kw_only=True)
class LossEntry:
    """One loss as its docstring and signature describe it."""

    name: str
    words: str  # the docstring's first sentence, or sentences up to the paper
    papers: tuple[tuple[str, str], ...]  # arXiv number and the place in the paper, "" where none is named
    options: tuple[tuple[str, Option], ...]  # with their defaults
    notes: tuple[str, ...]


def loss_entries() -> list[LossEntry]:
    """Every loss of `PREFERENCE_LOSSES`, in its order."""
    return [_entry(name, function) for name, function in PREFERENCE_LOSSES.items()]


def loss_markdown() -> str:
    """The table of losses for the README."""
    lines = ["| loss | what it is | paper | options (default) | notes |", "|---|---|---|---|---|"]
    for entry in loss_entries():
        papers = "; ".join(
            f"[{number}](https://arxiv.org/abs/{number})" + (f", {place}" if place else "")
            for number, place in entry.papers
        )
        options = ", ".join(f"`{key}` ({_show(default)})" for key, default in entry.options)
        words = entry.words.replace("|", "\\|").replace("*", "\\*")
        cells = (f"`{entry.name}`", words, papers or "–", options or "–", ", ".join(entry.notes) or "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _entry(name: str, function: PreferenceLoss) -> LossEntry:
    text = inspect.getdoc(function) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    _, options = loss_parameters(function)
    notes = []
    if getattr(function, "coupled", False):
        option, values = getattr(function, "uncoupled_by", ("", ()))
        unless = f" unless {option} is {' or '.join(values)}" if values else ""
        notes.append(f"coupled{unless}")
    if name in WITHOUT_REFERENCE:
        notes.append("no reference")
    if name in WITH_DIVERGENCE:
        notes.append("any divergence")
    return LossEntry(
        name=name,
        words=_before_the_paper(first),
        papers=tuple(dict.fromkeys(PAPER.findall(" ".join(text.split())))),
        options=tuple(options.items()),
        notes=tuple(notes),
    )


def _before_the_paper(sentence: str) -> str:
    """Leave out the citation that follows the first sentence on the same line."""
    return re.split(r"(?<=\.)\s+(?=[A-Z][\w'’-]+ et al\.|arXiv)", sentence)[0]


def _show(default: Option) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
