"""What became of an injected fault: named outcomes, one row each, and the table of them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from coevo_jax.report.markdown import table

# Outcomes that are as they should be.
SAME_BITS = "resumed to the same bits"
REFUSED = "refused by name, rc 2"
BROKE_OFF = "broke off with the reason, rc 1"
WENT_ON = "went on, its episodes are faults"
CLAMPED = "went on, rounding taken as 1"
UNREAD = "changed nothing, the same bits"
AUDITED = "never read, named by the audit"
GOOD = (SAME_BITS, REFUSED, BROKE_OFF, WENT_ON, CLAMPED, UNREAD, AUDITED)
# Those that are not.
TRACEBACK = "TRACEBACK"
UNNAMED = "REFUSED WITHOUT A NAME"
OTHER_BITS = "OTHER BITS"
LOST = "LOST"
ENTERED = "ENTERED"
UNSEEN = "UNSEEN"


@dataclass(frozen=True, kw_only=True)
class Injected:
    """One fault that was injected, and its outcome."""

    fault: str  # its kind, a row of the table
    method: str
    where: str  # the file, the call or the moment
    outcome: str
    how: str = "in process"  # or "process"
    lost: int = 0  # committed files that are gone or changed, or metrics that differ
    entered: int = 0  # faulty episodes in a pair, a plan or among finished episodes
    words: str = ""  # what was said, or the first difference

    @property
    def good(self) -> bool:
        return self.outcome in GOOD and not self.lost and not self.entered


def append_rows(path: Path, rows: Iterable[Injected]) -> None:
    """Keep rows, so that a whole table can be made in portions."""
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row)) + "\n")


def read_rows(path: Path) -> list[Injected]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Injected(**json.loads(line)) for line in lines]


def outcome_table(rows: Sequence[Injected]) -> str:
    """Fault by fault: how often, what happened, what was lost, and what entered a pair."""
    cells = []
    for how, fault in dict.fromkeys((row.how, row.fault) for row in sorted(rows, key=_place)):
        own = [row for row in rows if (row.how, row.fault) == (how, fault)]
        happened = Counter(row.outcome for row in own).most_common()
        lost, entered = sum(row.lost for row in own), sum(row.entered for row in own)
        cells.append(
            (
                fault,
                how,
                str(len(own)),
                str(len({row.method for row in own})),
                "; ".join(f"{outcome}: {count}" for outcome, count in happened),
                str(lost or "nothing"),
                str(entered or "nothing"),
            )
        )
    header = ("fault", "where", "times", "methods", "what happened", "lost", "entered a pair")
    return table(header, cells)


def _place(row: Injected) -> tuple[str, str]:
    return row.how, row.fault
