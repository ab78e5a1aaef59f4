#!/usr/bin/env bash
# sqlglot 30.30.0, read="mysql", parses without complaint statements that MySQL 8.0 and 9.7 refuse with error 1064.
#
# Seen: all ten statements below parse. MySQL says "You have an error in your SQL syntax ... near" and points at
#   FROM t | == 1 | ::text FROM t | ILIKE 'a%' | WHERE 1 | GROUP BY a | NULL | * FROM t | INT) FROM t | *) FROM t
# Why it matters here: an environment that answers as MySQL does cannot take sqlglot's parser for MySQL's grammar; an
# agent would learn that these work. So the emulation has a grammar of its own.
# Runs in a temporary folder, with public packages, without the project; fails where the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sqlglot==30.30.0
"$folder/venv/bin/python" - <<'PY'
import sqlglot

STATEMENTS = (
    "SELECT a, FROM t",
    "SELECT a FROM t WHERE a == 1",
    "SELECT a::text FROM t",
    "SELECT a FROM t WHERE a ILIKE 'a%'",
    "SELECT a FROM t LIMIT 1 WHERE 1",
    "SELECT a FROM t HAVING COUNT(*) > 1 GROUP BY a",
    "SELECT a FROM t WHERE a NOT NULL",
    "SELECT a, * FROM t",
    "SELECT CAST(a AS INT) FROM t",
    "SELECT COUNT (*) FROM t",
)
accepted = []
for statement in STATEMENTS:
    try:
        sqlglot.parse_one(statement, read="mysql")
        accepted.append(statement)
    except sqlglot.errors.ParseError as error:
        print("refused:", statement, "-", str(error).splitlines()[0])
print(f"sqlglot {sqlglot.__version__} accepts {len(accepted)} of {len(STATEMENTS)}")
assert len(accepted) == len(STATEMENTS), "sqlglot's MySQL dialect has become stricter: read this finding anew"
PY
