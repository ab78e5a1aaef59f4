"""What followed an episode's first error, as a table of the page and of the terminal."""

from collections.abc import Iterator
from html import escape

from rich.box import SIMPLE_HEAD
from rich.table import Table

from coevo_jax.episode_stats.after_error import FOLLOWED, AfterError
from coevo_jax.episode_stats.summary import Summary
from coevo_jax.report.cast import agent_name, cast_of, plain
from coevo_jax.report.page import note, section, table
from coevo_jax.report.words import count, percent, round_name
from coevo_jax.run_folder.results import Results, evaluation_label

_TITLE = "After the first error"
_TEXT = (
    "Episodes in which an action was not understood or could not be done, by what followed the first such "
    "error. Repeated: the next action was the same. Recovered: a later action worked, and the episode was "
    "solved. Gave up: the next action ended the episode. Cut off: a limit left no further turn. Went on: all "
    "others. In small print: of all finished episodes, of those with an error, of all successes. The last "
    "column: of the tokens that the agent wrote in failures, those behind the first error."
)
_COLUMNS = ("With an error", *(name.replace("_", " ").capitalize() for name in FOLLOWED))
_LAST = ("Successes with an error", "Failures' tokens behind")
_SHORT = ("with an error", *(name.replace("_", " ") for name in FOLLOWED), "successes", "tokens behind")


def errors_section(results: Results) -> str:
    """A row for each evaluation and exploration; nothing for a run of a version that did not look."""
    rows = [
        (
            round_name(number),
            escape(who),
            f"{count(errors['episodes'])} <small>of {count(summary['finished'])}</small>",
            *(_counted(errors[key], errors["episodes"]) for key in FOLLOWED),
            f"{count(errors['successes'])} <small>{percent(errors['success_rate'])}</small>",
            percent(errors["failure_tokens_behind"]),
        )
        for number, who, summary, errors in _entries(results)
    ]
    columns = ("Round", "Roll-outs", *_COLUMNS, *_LAST)
    return section("errors", _TITLE, note(_TEXT), table(columns, rows, left=(0, 1))) if rows else ""


def errors_table(results: Results) -> Table | None:
    """The same for a terminal; None where nothing is known."""
    shown = Table(
        title=f"{_TITLE}: episodes; the last column is a share of all failures' agent tokens",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("Round", "Roll-outs", *_SHORT):
        shown.add_column(name, justify="left" if name in ("Round", "Roll-outs") else "right")
    last = None
    for number, who, summary, errors in _entries(results):
        shown.add_row(
            str(number) if number != last else "",
            who.replace(agent_name("failure"), plain("failure")),
            f"{count(errors['episodes'])} of {count(summary['finished'])}",
            *(count(errors[key]) for key in FOLLOWED),
            f"{count(errors['successes'])} ({percent(errors['success_rate'])})",
            percent(errors["failure_tokens_behind"]),
        )
        last = number
    return shown if shown.row_count else None


def _entries(results: Results) -> Iterator[tuple[int, str, Summary, AfterError]]:
    """Round, whose roll-outs, and their summary, in the order of a run."""
    cast = cast_of(results)
    every: list[tuple[int, bool, str, Summary]] = [
        (e["round"], True, f"{cast.evaluation_name(evaluation_label(e))}, {e['split']}", e)
        for e in results["evaluations"]
    ]
    every += [(e["round"], False, cast.phase_name(e["phase"]), e) for e in results["explorations"]]
    for number, _, who, summary in sorted(every, key=lambda one: one[:2]):
        if summary["after_error"] is not None:
            yield number, who, summary, summary["after_error"]


def _counted(found: int, episodes: int) -> str:
    share = f" <small>{100 * found / episodes:.0f} %</small>" if episodes else ""
    return f"{count(found)}{share}"
