"""Which run of a study a free worker takes next: pure rules over what is known of the others."""

from collections.abc import Callable, Mapping, Sequence

from coevo_jax.study.plan import Cell

State = str
"""waiting, running, done (its row is written), or lost (it came to no finished run)."""

Alike = Callable[[Cell, Cell], bool]


def next_cell(cells: Sequence[Cell], states: Mapping[tuple[str, int], State], alike: Alike) -> Cell | None:
    """The first cell that can begin; None where all that is left waits for a run under way.

    A cell waits for the run that its budget is taken from, and for a run that makes the warm start which it
    could take over, unless a finished one has it already. A cell whose budget's run is lost may begin, to
    fail with the reason.

    Args:
      alike: whether two cells begin with one warm start.
    """
    by_folder = {cell.folder: states[cell.key] for cell in cells}
    for cell in cells:
        if states[cell.key] != "waiting":
            continue
        if cell.after is not None and by_folder.get(cell.after) in ("waiting", "running"):
            continue
        relatives = [states[other.key] for other in cells if other is not cell and alike(other, cell)]
        if "done" in relatives or "running" not in relatives:
            return cell
    return None
