"""Make statements of the kinds that agents write, for a comparison with a server that nobody fitted to.

They come from the schema of a dump and from gold queries: golds and their mutations, functions over every
kind of column, joins, groups, subqueries, windows, set operations, typing errors, SHOW and
information_schema.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from coevo_jax.envs.intercode_sql.mysql.schema import DatabaseSchema, TableSchema

_FUNCTIONS = """
UPPER({0}) | LOWER({0}) | LENGTH({0}) | CHAR_LENGTH({0}) | LEFT({0}, 3) | RIGHT({0}, 2)
SUBSTRING({0}, 2) | TRIM({0}) | CONCAT({0}, '-', {1}) | CONCAT_WS('/', {0}, {1})
REPLACE({0}, 'a', 'b') | REVERSE({0}) | LPAD({0}, 6, '*') | LOCATE('a', {0}) | ASCII({0}) | HEX({0})
FIELD({0}, {1}, 'x') | STRCMP({0}, {1}) | SUBSTRING_INDEX({0}, ' ', 1) | ABS({0}) | ROUND({0})
ROUND({0}, 1) | ROUND({0}, -1) | CEIL({0}) | FLOOR({0}) | TRUNCATE({0}, 1) | MOD({0}, 3) | SQRT({0})
POWER({0}, 2) | SIGN({0}) | LOG({0}) | EXP({0} / 1000) | {0} + 1 | {0} - {1} | {0} * 2 | {0} / 3
{0} DIV 2 | {0} % 4 | -{0} | {0} + 1.5 | {0} * {1} | {0} / {1} | {0} & 3 | ~{0} | GREATEST({0}, {1})
LEAST({0}, 5) | COALESCE({0}, 'none') | COALESCE({0}, 0) | IFNULL({0}, {1}) | NULLIF({0}, {1})
IF({0} > 5, 'hi', 'lo') | IF({0}, {1}, 0) | {0} IS NULL | ISNULL({0}) | {0} = {1} | {0} <=> NULL
{0} > 5 | {0} BETWEEN 1 AND 20 | {0} IN (1, 2, '3') | {0} LIKE '%a%' | {0} REGEXP '^[A-M]' | NOT {0}
{0} AND 1 | {0} XOR 1 | CAST({0} AS SIGNED) | CAST({0} AS UNSIGNED) | CAST({0} AS CHAR)
CAST({0} AS DECIMAL(10,2)) | CAST({0} AS DATE) | CAST({0} AS DOUBLE) | YEAR({0}) | MONTH({0}) | DAY({0})
DATE({0}) | DATEDIFF({0}, '2010-01-01') | DATE_FORMAT({0}, '%Y-%m-%d') | DAYNAME({0}) | MONTHNAME({0})
QUARTER({0}) | DATE_ADD({0}, INTERVAL 1 DAY) | {0} + INTERVAL 1 MONTH
TIMESTAMPDIFF(YEAR, {0}, '2020-01-01') | LAST_DAY({0}) | CASE WHEN {0} > 3 THEN 'a' ELSE 0 END
CASE {0} WHEN {1} THEN 1 ELSE 2.5 END | FORMAT({0}, 2) | BIN({0}) | CRC32({0}) | SOUNDEX({0})
REPEAT({0}, 2) | INSTR({0}, 'e') | EXTRACT(YEAR FROM {0}) | WEEK({0}) | HOUR({0}) | ELT({0}, 'a', 'b')
"""
FUNCTIONS = [form.strip() for form in re.split(r" \| |\n", _FUNCTIONS.strip())]
_AGGREGATES = """
COUNT({0}) | COUNT(DISTINCT {0}) | SUM({0}) | AVG({0}) | MIN({0}) | MAX({0}) | STD({0}) | VARIANCE({0})
STDDEV_SAMP({0}) | GROUP_CONCAT({0}) | GROUP_CONCAT(DISTINCT {0} ORDER BY {0} DESC SEPARATOR ';')
BIT_OR({0}) | SUM({0}) / COUNT(*) | MAX({0}) - MIN({0}) | AVG({0} + 1) | SUM(DISTINCT {0})
COUNT(DISTINCT {0}, {1}) | ROUND(AVG({0}), 2)
"""
AGGREGATES = [form.strip() for form in re.split(r" \| |\n", _AGGREGATES.strip())]
_WINDOWS = """
ROW_NUMBER() OVER (ORDER BY {0}, {1})
RANK() OVER (PARTITION BY {0} ORDER BY {1})
SUM({0}) OVER (ORDER BY {1})
DENSE_RANK() OVER (ORDER BY {0})
LAG({0}) OVER (ORDER BY {1})
COUNT(*) OVER (PARTITION BY {0})
FIRST_VALUE({0}) OVER (PARTITION BY {1} ORDER BY {0})
NTILE(3) OVER (ORDER BY {0})
AVG({0}) OVER ()
"""
WINDOWS = re.sub(r"\n    ", " ", _WINDOWS).strip().split("\n")
_INFORMATION = """
SELECT table_name FROM information_schema.tables WHERE table_schema = '{db}'
SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_schema =
    '{db}' AND table_name = '{t}' ORDER BY ordinal_position
SELECT column_name, column_key, extra FROM information_schema.columns WHERE table_schema = '{db}'
    AND table_name = '{t}' ORDER BY column_name
SELECT constraint_name, column_name, referenced_table_name FROM information_schema.key_column_usage
    WHERE table_schema = '{db}' AND table_name = '{t}'
SELECT index_name, seq_in_index, column_name, non_unique FROM information_schema.statistics WHERE
    table_schema = '{db}' AND table_name = '{t}'
SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = '{db}'
SELECT table_name, COUNT(*) FROM information_schema.columns WHERE table_schema = '{db}' GROUP BY
    table_name
SELECT numeric_precision, numeric_scale, character_maximum_length, column_type FROM
    information_schema.columns WHERE table_schema = '{db}' AND table_name = '{t}' ORDER BY
    ordinal_position
"""
INFORMATION = re.sub(r"\n    ", " ", _INFORMATION).strip().split("\n")
_SHOWN = """
SHOW TABLES | DESC {t} | DESCRIBE {t} | SHOW COLUMNS FROM {t} | SHOW FULL COLUMNS FROM {t}
SHOW INDEX FROM {t} | SHOW COLUMNS FROM {t} LIKE '%a%' | SHOW TABLES LIKE '%e%' | SHOW FULL TABLES
DESC {t} {c} | SHOW TABLES FROM {db} | SHOW COLUMNS FROM {t} WHERE Type LIKE 'int%' | EXPLAIN {t}
SHOW COLUMNS {t} | DESC {t}x | SHOW TABLE | SHOW KEYS IN {t} | SHOW CREATE TABLE {t}x | DESC nosuch.{t}
SHOW TABLES FROM nosuch | USE nosuch | SELECT DATABASE()
"""
SHOWN = [form.strip() for form in re.split(r" \| |\n", _SHOWN.strip())]
_JOINS = """
SELECT a.{c}, b.{d} FROM {t} a JOIN {u} b ON a.{k} = b.{l}
SELECT b.{d}, COUNT(*) FROM {t} a JOIN {u} b ON a.{k} = b.{l} GROUP BY b.{d}
SELECT a.{c}, b.{d} FROM {t} a LEFT JOIN {u} b ON a.{k} = b.{l}
SELECT DISTINCT a.{c} FROM {t} a JOIN {u} b ON a.{k} = b.{l}
SELECT a.{c} FROM {t} a, {u} b WHERE a.{k} = b.{l} AND b.{d} IS NOT NULL
SELECT a.{c}, b.{d} FROM {t} a RIGHT JOIN {u} b ON a.{k} = b.{l}
SELECT a.{c}, MAX(b.{d}) FROM {t} a JOIN {u} b ON a.{k} = b.{l} GROUP BY a.{c} ORDER BY COUNT(*) DESC
SELECT a.{c} FROM {t} a JOIN {u} b ON a.{k} = b.{l} ORDER BY b.{d} LIMIT 3
SELECT * FROM {t} a NATURAL JOIN {u} b
SELECT {c}, {d} FROM {t} JOIN {u} ON {t}.{k} = {u}.{l}
SELECT a.{c} FROM {t} a JOIN {u} b USING ({k})
SELECT a.{c} FROM {t} a WHERE a.{k} IN (SELECT {l} FROM {u})
SELECT a.{c} FROM {t} a WHERE a.{k} NOT IN (SELECT {l} FROM {u} WHERE {l} IS NOT NULL)
SELECT a.{c} FROM {t} a WHERE EXISTS (SELECT 1 FROM {u} b WHERE b.{l} = a.{k})
SELECT a.{c}, (SELECT COUNT(*) FROM {u} b WHERE b.{l} = a.{k}) FROM {t} a
SELECT COUNT(*) FROM {t} a JOIN {u} b ON a.{k} = b.{l} WHERE a.{c} IS NOT NULL
"""
JOINS = re.sub(r"\n    ", " ", _JOINS).strip().split("\n")
_SINGLE = """
SELECT {c}, COUNT(*) FROM {t} GROUP BY {c}
SELECT DISTINCT {c} FROM {t}
SELECT {c} FROM {t} ORDER BY {d}
SELECT {c}, {d} FROM {t} ORDER BY {c} DESC LIMIT 3
SELECT {c}, {d} FROM {t} GROUP BY {c}
SELECT {c} FROM {t} GROUP BY {c} HAVING COUNT(*) > 1
SELECT {c}, MAX({d}) FROM {t} GROUP BY {c} ORDER BY MAX({d}) DESC LIMIT 2
SELECT {c} FROM {t} WHERE {d} = (SELECT MAX({d}) FROM {t})
SELECT {c} FROM {t} WHERE {d} > (SELECT AVG({d}) FROM {t})
SELECT * FROM {t} LIMIT 3
SELECT {c} FROM {t} UNION SELECT {d} FROM {t}
SELECT {c} FROM {t} EXCEPT SELECT {d} FROM {t}
SELECT {c} FROM {t} INTERSECT SELECT {c} FROM {t}
SELECT DISTINCT {c}, {d} FROM {t} ORDER BY {d}
SELECT DISTINCT {c} FROM {t} ORDER BY {d}
SELECT {c} FROM {t} HAVING {d} IS NOT NULL
SELECT {c} AS x FROM {t} ORDER BY x LIMIT 4
SELECT x, COUNT(*) FROM (SELECT {c} AS x, {d} AS y FROM {t}) z GROUP BY x
WITH a AS (SELECT {c} AS x FROM {t}) SELECT x FROM a ORDER BY x
SELECT {c}, COUNT(*) AS n FROM {t} GROUP BY {c} ORDER BY n DESC LIMIT 3
SELECT {c} FROM {t} WHERE {c} = (SELECT {c} FROM {t})
SELECT {c} FROM {t} WHERE {d} = MAX({d})
SELECT {c} FROM {t} WHERE {d} <> '' AND {c} IS NOT NULL LIMIT 4
SELECT {c}, SUM({d}) FROM {t} GROUP BY {c} WITH ROLLUP
SELECT {c}, {d} FROM {t} WHERE {c} IN (SELECT {c} FROM {t} GROUP BY {c} HAVING COUNT(*) > 1)
SELECT COUNT(*) FROM {t} WHERE {c} IS NULL OR {d} = 1
SELECT {c} FROM {t} ORDER BY COUNT(*)
SELECT COUNT(*), {c} FROM {t} ORDER BY {d}
SELECT {c} FROM {t} ORDER BY {c} DESC, {d} LIMIT 5
"""
SINGLE = re.sub(r"\n    ", " ", _SINGLE).strip().split("\n")
MUTATIONS: Sequence[tuple[str, str, str]] = (
    ("typo", r"FROM", "FORM"),
    ("typo", r"SELECT", "SELCT"),
    ("typo", r",", ",,"),
    ("typo", r"\)", ""),
    ("typo", r"WHERE", "WERE"),
    ("typo", r"GROUP BY", "GROUP"),
    ("typo", r"=", "=="),
    ("typo", r"\bAS\b", "AS AS"),
    ("typo", r"\(", "(("),
    ("typo", r"JOIN", "JOIN ON"),
    ("typo", r"'|\"", ""),
    ("typo", r" (\w+)$", r" \1 \1 \1"),
    ("drop GROUP BY", r"GROUP BY [\w.]+( ,[\w. ]+)?", ""),
    ("drop ORDER BY", r"ORDER BY .*?( DESC| ASC)", ""),
    ("drop WHERE", r"WHERE .*?(?=GROUP|ORDER|$)", ""),
    ("wrong column", r"(\w\w+) FROM", r"\1x FROM"),
    ("wrong column", r"T1\.(\w+)", r"T2.\1"),
    ("wrong table", r"FROM (\w+)", r"FROM \1s"),
    ("add LIMIT", r"$", " LIMIT 3"),
    ("add ORDER BY", r"$", " ORDER BY 1 DESC"),
    ("add DISTINCT", r"^SELECT (?!DISTINCT)", "SELECT DISTINCT "),
)


def _quoted(name: str) -> str:
    return (
        name if re.fullmatch(r"[A-Za-z_]\w*", name) and name.lower() not in ("show", "rank") else f"`{name}`"
    )


def make_statements(
    databases: Sequence[DatabaseSchema], golds: Sequence[tuple[str, str]], count: int, seed: int
) -> list[dict[str, str]]:
    """So many statements of each kind: their kind, database and text."""
    rng = np.random.default_rng([seed, 7])
    makers: dict[str, Callable[[], tuple[str, str]]] = {
        "functions": lambda: _functions(rng, databases),
        "aggregates": lambda: _aggregates(rng, databases),
        "window": lambda: _windows(rng, databases),
        "joins": lambda: _joins(rng, databases),
        "single table": lambda: _filled(rng, databases, SINGLE),
        "SHOW/DESC": lambda: _filled(rng, databases, SHOWN),
        "information_schema": lambda: _filled(rng, databases, INFORMATION),
    }
    made = [
        {"kind": kind, "database": database, "statement": statement}
        for kind, make in makers.items()
        for database, statement in (make() for _ in range(count))
    ]
    for _ in range(2 * count if golds else 0):
        database, gold = golds[rng.integers(len(golds))]
        kind, pattern, new = MUTATIONS[rng.integers(len(MUTATIONS))]
        changed = re.sub(pattern, new, gold, count=1, flags=re.IGNORECASE)
        if changed != gold:
            made.append({"kind": kind, "database": database, "statement": changed})
    return made


def _table(
    rng: np.random.Generator, databases: Sequence[DatabaseSchema]
) -> tuple[DatabaseSchema, TableSchema]:
    database = databases[rng.integers(len(databases))]
    return database, database.tables[rng.integers(len(database.tables))]


def _columns(rng: np.random.Generator, table: TableSchema) -> tuple[str, str]:
    names = [_quoted(column.name) for column in table.columns]
    return names[rng.integers(len(names))], names[rng.integers(len(names))]


def _functions(rng: np.random.Generator, databases: Sequence[DatabaseSchema]) -> tuple[str, str]:
    database, table = _table(rng, databases)
    first, second = _columns(rng, table)
    call = FUNCTIONS[rng.integers(len(FUNCTIONS))].format(first, second)
    place = rng.integers(4)
    name = _quoted(table.name)
    if place == 0:
        return database.name, f"SELECT COUNT(*) FROM {name} WHERE {call}"
    if place == 1:
        return database.name, f"SELECT {first}, {call} FROM {name} ORDER BY 2, 1 LIMIT 5"
    return database.name, f"SELECT {call} FROM {name}" + " LIMIT 5" * int(place == 2)


def _aggregates(rng: np.random.Generator, databases: Sequence[DatabaseSchema]) -> tuple[str, str]:
    database, table = _table(rng, databases)
    first, second = _columns(rng, table)
    call = AGGREGATES[rng.integers(len(AGGREGATES))].format(first, second)
    name = _quoted(table.name)
    forms = (f"SELECT {call} FROM {name}", f"SELECT {second}, {call} FROM {name} GROUP BY {second}")
    return database.name, (*forms, f"SELECT {second}, {call} FROM {name}")[rng.integers(3)]


def _windows(rng: np.random.Generator, databases: Sequence[DatabaseSchema]) -> tuple[str, str]:
    database, table = _table(rng, databases)
    first, second = _columns(rng, table)
    call = WINDOWS[rng.integers(len(WINDOWS))].format(first, second)
    return database.name, f"SELECT {first}, {second}, {call} FROM {_quoted(table.name)}"


def _filled(
    rng: np.random.Generator, databases: Sequence[DatabaseSchema], forms: Sequence[str]
) -> tuple[str, str]:
    database, table = _table(rng, databases)
    first, second = _columns(rng, table)
    form = forms[rng.integers(len(forms))]
    return database.name, form.format(db=database.name, t=_quoted(table.name), c=first, d=second)


def _joins(rng: np.random.Generator, databases: Sequence[DatabaseSchema]) -> tuple[str, str]:
    """Two tables along a foreign key, or by any two columns."""
    database, table = _table(rng, databases)
    other = database.tables[rng.integers(len(database.tables))]
    key, target = _columns(rng, table)[0], _columns(rng, other)[0]
    if table.foreign_keys and rng.random() < 0.8:
        foreign = table.foreign_keys[rng.integers(len(table.foreign_keys))]
        other = database.table(foreign.table) or other
        key, target = _quoted(foreign.columns[0]), _quoted(foreign.references[0])
        if rng.random() < 0.5:
            table, other, key, target = other, table, target, key
    form = JOINS[rng.integers(len(JOINS))]
    first, second = _columns(rng, table)[0], _columns(rng, other)[0]
    return database.name, form.format(
        t=_quoted(table.name), u=_quoted(other.name), c=first, d=second, k=key, l=target
    )
