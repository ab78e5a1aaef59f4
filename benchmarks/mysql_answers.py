"""Compare the emulation of MySQL with a real server's answers, and write the docs' table of differences.

python -m benchmarks.mysql_answers --dump FOLDER/ic_spider_dbs.sql ANSWERS.jsonl.gz
python -m benchmarks.mysql_answers --dump FOLDER/ic_spider_dbs.sql ANSWERS.jsonl.gz --show joins --docs

Every line of the answers is {"kind", "database", "statement", "mysql_default_mode"} and, where it differs without
ONLY_FULL_GROUP_BY, "mysql_without_full_group_by". An answer is a list of rows, cut beside "..._count" and
"..._sha256_of_repr" where it is long, or {"error": code, "message": words}. tests/envs/mysql_server.py makes such
lines from a server.
"""

import argparse
import ast
import gzip
import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.methods import ROOT, write_table
from coevo_jax.envs.intercode_sql.mysql import Dump, Rules, open_dump
from coevo_jax.envs.intercode_sql.sandbox import QueryLimits, SqlError

LIMITS = QueryLimits(rows=1_000_000, instructions=2_000_000_000, seconds=60.0)
DEFAULT, LOOSE = "mysql_default_mode", "mysql_without_full_group_by"
MODES = {DEFAULT: Rules(), LOOSE: Rules(full_group_by=False)}
TABLE = "intercode-sql-differences"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One statement in one mode: exact, order, message, refused, answered, rows."""

    kind: str
    mode: str
    database: str
    statement: str
    result: str
    ours: str
    theirs: str


def cell(value: Any) -> Any:
    """A value as the answers keep it."""
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    readers = {"decimal": Decimal, "datetime": datetime.fromisoformat, "date": date.fromisoformat}
    return readers[kind](text) if kind in readers else ast.literal_eval(text)


def read_answers(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of answers, which may be compressed."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        for line in lines:
            yield json.loads(line)


def judge(ours: list[tuple] | str, answer: dict[str, Any], mode: str) -> tuple[str, str]:
    """How our rows, or our error's words, agree with an answer, and the answer as text."""
    theirs = answer[mode]
    if isinstance(theirs, dict):
        same = theirs["message"] == ours
        return ("exact" if same else "message" if isinstance(ours, str) else "answered"), theirs["message"]
    rows = [tuple(map(cell, row)) for row in theirs]
    if isinstance(ours, str):
        return "refused", str(rows[:5])
    if (count := answer.get(f"{mode}_count")) is not None:
        digest = answer[f"{mode}_sha256_of_repr"]
        if digest in (_digest(ours), _digest(tuple(ours))):
            return "exact", ""
        in_order = sorted(map(repr, ours[: len(rows)])) == sorted(map(repr, rows))
        return ("order" if len(ours) == count and not in_order else "rows"), str(rows[:5])
    if list(map(repr, ours)) == list(map(repr, rows)):
        return "exact", ""
    return ("order" if sorted(map(repr, ours)) == sorted(map(repr, rows)) else "rows"), str(rows)


def _digest(rows: Sequence[tuple]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def compare(dump: Dump, answers: Sequence[dict[str, Any]]) -> list[Comparison]:
    """Every statement of the answers in both modes."""
    sandboxes = {
        (name.lower(), mode): dump.open(name, LIMITS, rules)
        for name in dump.names
        for mode, rules in MODES.items()
    }
    found = []
    for answer in answers:
        for mode in MODES:
            ours: list[tuple] | str
            try:
                ours = sandboxes[answer["database"].lower(), mode].run(answer["statement"])
            except SqlError as error:
                ours = str(error)
            there = mode if mode in answer else DEFAULT
            result, theirs = judge(ours, answer, there)
            found.append(
                Comparison(
                    kind=answer["kind"],
                    mode=mode,
                    database=answer["database"],
                    statement=answer["statement"],
                    result=result,
                    ours=str(ours)[:600],
                    theirs=theirs[:600],
                )
            )
    return found


def shares(found: Sequence[Comparison]) -> list[tuple[str, int, float, float, Counter[str]]]:
    """Kind, statements, exact shares in both modes, and what the others are; all of them together first."""
    kinds: dict[str, list[Comparison]] = defaultdict(list)
    for one in found:
        kinds["all"].append(one)
        kinds[one.kind].append(one)
    rows = []
    for kind, ones in kinds.items():
        exact = []
        for mode in MODES:
            results = [one.result for one in ones if one.mode == mode]
            exact.append(results.count("exact") / len(results))
        rest = Counter(one.result for one in ones if one.mode == DEFAULT and one.result != "exact")
        rows.append((kind, len(ones) // len(MODES), exact[0], exact[1], rest))
    return rows[:1] + sorted(rows[1:], key=lambda row: -row[1])


def markdown(found: Sequence[Comparison]) -> str:
    """The docs' table of differences."""
    lines = [
        "| statements | number | exact | exact without ONLY_FULL_GROUP_BY | of the rest |",
        "|---|---|---|---|---|",
    ]
    words = {
        "order": "other order",
        "message": "other error text",
        "answered": "answered, refused there",
        "refused": "refused, answered there",
        "rows": "other rows or types",
    }
    for kind, count, default, loose, rest in shares(found):
        others = ", ".join(f"{number} {words[result]}" for result, number in rest.most_common())
        lines.append(f"| {kind} | {count} | {default:.1%} | {loose:.1%} | {others} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mysql_answers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("answers", type=Path, nargs="+")
    parser.add_argument("--dump", type=Path, required=True, help="InterCode's ic_spider_dbs.sql")
    parser.add_argument(
        "--show", metavar="KIND", help="print the statements of a kind that differ, or of all"
    )
    parser.add_argument("--mode", choices=list(MODES), default=DEFAULT, help="of the statements shown")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/environments.md")
    args = parser.parse_args()
    answers = [answer for path in args.answers for answer in read_answers(path)]
    found = compare(open_dump(args.dump), answers)
    for one in found:
        if one.result != "exact" and args.show in (one.kind, "all") and one.mode == args.mode:
            print(f"[{one.kind}: {one.result}] {one.database}: {one.statement}")
            print(f"    ours   {one.ours}\n    theirs {one.theirs}")
    text = markdown(found)
    if args.docs:
        write_table(TABLE, text, ROOT / "docs" / "environments.md")
    print(text, file=sys.stderr if args.show else sys.stdout)


if __name__ == "__main__":
    main()
