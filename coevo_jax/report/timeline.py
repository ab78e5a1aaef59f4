"""What runs did, one phase after the other."""

from collections.abc import Sequence

from coevo_jax.report.cast import cast_of
from coevo_jax.report.charts import Stretch, timeline
from coevo_jax.report.words import BETWEEN
from coevo_jax.run_folder.results import Results, time_between_phases

_KINDS = {
    "prepare": ("before the rounds", "c6"),
    "warm_start": ("before the rounds", "c6"),
    "explore": ("plays on training tasks", "c3"),
    "branch": ("plays on training tasks", "c3"),
    "ask": ("judges what was played", "c4"),
    "judge": ("judges what was played", "c4"),
    "learn": ("learns", "c1"),
    "evaluate": ("evaluation", "c5"),
}
_OTHER = ("other", "c2")
TITLE = "Phases"


def stretches(results: Results) -> list[Stretch]:
    """The phases of a run in their order; last, all that lies between them."""
    cast, found = cast_of(results), []
    for phase in results["phases"]:
        name = phase["name"]
        last = name.rpartition("/")[2]
        kind, tone = _KINDS.get(last, _KINDS.get(last.partition("_")[0], _OTHER))
        found.append(Stretch(name=cast.phase_name(name), kind=kind, tone=tone, seconds=phase["seconds"]))
    if between := time_between_phases(results):
        found.append(Stretch(name=BETWEEN, kind=BETWEEN.lower(), tone=_OTHER[1], seconds=between))
    return found


def phases_chart(runs: Sequence[tuple[str, Results]]) -> str:
    """A timeline of runs, each with the name that it goes by on the page."""
    return timeline(TITLE, [(name, stretches(results)) for name, results in runs])
