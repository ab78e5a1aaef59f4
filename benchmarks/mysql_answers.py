"""Compare the emulation of MySQL with a real server's answers, and write the docs' table of differences.

python -m benchmarks.mysql_answers --dump FOLDER/ic_spider_dbs.sql ANSWERS.jsonl.gz
python -m benchmarks.mysql_answers --dump FOLDER/ic_spider_dbs.sql ANSWERS.jsonl.gz --show joins --docs

Every line of the answers is {"kind", "database", "statement", "mysql_default_mode"} and, where it differs
without ONLY_FULL_GROUP_BY, "mysql_without_full_group_by". An answer is a list of rows, cut beside "..._count"
and "..._sha256_of_repr" where it is long, or {"error": code, "message": words}. Without a file of answers,
--server SOCKET asks a server that holds the dump, for --made statements of each kind
(benchmarks.mysql_statements) and for the gold queries beside the dump.
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

import pymysql

from benchmarks.methods import ROOT, write_table
from benchmarks.mysql_statements import make_statements
from coevo_jax.envs.intercode_sql.mysql import Dump, Rules, as_valid_mysql, open_dump
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits, SqlError

LIMITS = QueryLimits(rows=1_000_000, instructions=2_000_000_000, seconds=60.0)
DEFAULT, LOOSE = "mysql_default_mode", "mysql_without_full_group_by"
MODES = {DEFAULT: Rules(), LOOSE: Rules(full_group_by=False)}
BASE_MODE = (
    "STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
)
SQL_MODES = {DEFAULT: f"ONLY_FULL_GROUP_BY,{BASE_MODE}", LOOSE: BASE_MODE}
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
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in content.decode("utf-8").splitlines():
        yield json.loads(line)


def ask_server(socket: str, user: str, statements: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """A server's answers in both modes, as lines of a file of answers; its rows are kept whole."""
    answers: list[dict[str, Any]] = [dict(statement) for statement in statements]
    for mode, sql_mode in SQL_MODES.items():
        connection = pymysql.connect(user=user, unix_socket=socket, charset="utf8mb4", autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = %s", (sql_mode,))
            for answer in answers:
                cursor.execute(f"USE `{answer['database'].lower()}`")
                try:
                    cursor.execute(answer["statement"])
                    answer[mode] = list(cursor.fetchall())
                except pymysql.Error as error:
                    answer[mode] = {"error": error.args[0], "message": error.args[1]}
    return answers


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
    parser.add_argument("answers", type=Path, nargs="*", help="files of answers")
    parser.add_argument("--dump", type=Path, required=True, help="InterCode's ic_spider_dbs.sql")
    parser.add_argument("--server", metavar="SOCKET", help="ask a server that holds the dump")
    parser.add_argument("--user", default="agent", help="who may only read (default: agent)")
    parser.add_argument("--made", type=int, default=100, help="statements of each kind to make for it")
    parser.add_argument("--seed", type=int, default=0, help="of the statements that are made")
    parser.add_argument("--show", metavar="KIND", help="print the differing statements of a kind, or all")
    parser.add_argument("--mode", choices=list(MODES), default=DEFAULT, help="of the statements shown")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/environments.md")
    args = parser.parse_args()
    if not args.answers and not args.server:
        parser.error("give files of answers, or --server")
    dump = open_dump(args.dump)
    answers = [answer for path in args.answers for answer in read_answers(path)]
    if args.server:
        questions = json.loads((args.dump.parent / "ic_spider_dev.json").read_text(encoding="utf-8"))
        golds = [(row["db"], as_valid_mysql(row["gold"])) for row in questions]
        made = make_statements(dump.converted.databases, golds, args.made, args.seed)
        made += [{"kind": "gold", "database": name, "statement": gold} for name, gold in golds]
        answers += ask_server(args.server, args.user, made)
    found = compare(dump, answers)
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
