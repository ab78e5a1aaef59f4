"""Actions an agent should not write, but may: malformed, hostile, and known ones changed at random."""

import re
from collections.abc import Sequence

import numpy as np

LONG = 100_000  # characters

MALFORMED: dict[str, str] = {
    "empty": "",
    "blanks": "    \t ",
    "newlines": "\n\n\r\n\n",
    "100,000 characters": "x" * LONG,
    "100,000 characters of words": "go to the kitchen " * (LONG // 18),
    "binary noise": bytes(range(256)).decode("latin-1"),
    "undecodable bytes": "\ufffd" * 40 + "\x00\x07\x1b[31m",
    "opening brackets": "[" * 20_000,
    "unbalanced brackets": "execute[SELECT (((1",
    "unopened brackets": "]])) look ]}",
    "an unclosed fence": "execute[```sql\nSELECT 1",
    "other scripts": "открой дверь, 打开门, افتح الباب, दरवाज़ा खोलो 🚪\u200f\u202e",
    "quotes": "look '\"`; DROP TABLE task; --",
    "placeholders": "%s %n {0} {task!r} ${HOME} `id` $(id)",
    "a path": "../../../../etc/passwd",
    "only the marker": "Action:",
    "a huge number": "9" * 400,
    "several lines": "look\nlook\nlook",
    "SQL that attaches a file": "execute[ATTACH DATABASE ':memory:' AS other]",
    "SQL that never ends": (
        "execute[WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n]"
    ),
    "SQL that changes settings": "execute[PRAGMA writable_schema = 1]",
    "a long search": f"search[{'red shoes ' * (LONG // 10)}]",
    "an empty search": "search[]",
    "an unknown product": "click[b0nosuchprod]",
    "an unknown link": "click[../../etc/passwd]",
    "a click on nothing": "click[",
}
"""By what is wrong with them. None of them ends in a solved task by merit."""

_TABLE = re.compile(r"\bfrom\s+[`\"']?(\w+)", re.IGNORECASE)


def destroying(actions: Sequence[str]) -> tuple[str, ...]:
    """SQL that would write to the tables that these actions read from, if it were let."""
    tables = dict.fromkeys(name for action in actions for name in _TABLE.findall(action))
    patterns = (
        "DROP TABLE {}",
        "DELETE FROM {}",
        "ALTER TABLE {} RENAME TO gone",
        "CREATE TABLE new_{} (a INT)",
    )
    return tuple(f"execute[{pattern.format(name)}]" for name in tables for pattern in patterns)


def perturbed(action: str, rng: np.random.Generator) -> str:
    """The action with one random change: a slip of the pen of an agent that knows what actions look like."""
    words = action.split(" ")
    change = rng.integers(5)
    if change == 0:
        return action[: rng.integers(len(action) + 1)]
    if change == 1:
        return action.swapcase()
    if change == 2:
        return " ".join(words[::-1])
    if change == 3:
        return f"{action} {action}"
    return f" {action}\n"
