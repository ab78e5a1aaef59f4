"""Reads a dump of `mysqldump`: databases, tables and rows. Everything else in it is left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.intercode_sql.mysql.schema import (
    ColumnSchema,
    DatabaseSchema,
    ForeignKeySchema,
    IndexSchema,
    TableSchema,
)

Cell = int | float | str | None

# One piece of a dump: a comment (dropped), a text or quoted name, a run of plain characters, or the end of a
# statement. A lone quote matches nothing, which is how an unclosed text is found.
PIECE = re.compile(
    r"(?P<comment>--(?=[\s])[^\n]*|#[^\n]*|/\*.*?\*/)"
    r"|(?P<quoted>'(?:[^'\\]|\\.|'')*'|`[^`]*`|\"(?:[^\"\\]|\\.|\"\")*\")"
    r"|(?P<end>;)"
    r"|(?P<plain>[^'`\";#/\-]+|[-/])",
    re.DOTALL,
)
CELL = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.|'')*')|(?P<null>NULL)|0x(?P<hex>[0-9a-f]+)"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?))\s*([,)])",
    re.IGNORECASE | re.DOTALL,
)
NAME = r"`([^`]+)`"
NAMES = re.compile(NAME)
DATABASE = re.compile(rf"(?:CREATE\s+DATABASE(?:\s+IF\s+NOT\s+EXISTS)?|USE)\s+{NAME}", re.IGNORECASE)
CREATE = re.compile(rf"CREATE\s+TABLE(?:\s+IF\s+NOT\s+EXISTS)?\s+{NAME}\s*\(", re.IGNORECASE)
INSERT = re.compile(rf"INSERT\s+INTO\s+{NAME}\s*(\([^)]*\))?\s*VALUES\s*", re.IGNORECASE)
COLUMN = re.compile(rf"{NAME}\s+(\w+(?:\s*\([^)]*\))?(?:\s+unsigned)?)(.*)", re.IGNORECASE | re.DOTALL)
DEFAULT = re.compile(r"\bDEFAULT\s+('(?:[^'\\]|\\.|'')*'|[\w().+-]+)", re.IGNORECASE)
FOREIGN = re.compile(
    rf"CONSTRAINT\s+{NAME}\s+FOREIGN\s+KEY\s*\(([^)]*)\)\s*REFERENCES\s+{NAME}\s*\(([^)]*)\)", re.IGNORECASE
)
INDEX = re.compile(rf"(UNIQUE\s+)?(?:KEY|INDEX)\s+{NAME}\s*\((.*)\)", re.IGNORECASE | re.DOTALL)
ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}


@dataclass(kw_only=True)
class DumpDatabase:
    """A database of a dump."""

    schema: DatabaseSchema
    rows: dict[str, list[tuple[Cell, ...]]]  # by table


@dataclass
class _Reading:
    source: str
    tables: dict[str, dict[str, TableSchema]] = field(default_factory=dict)
    rows: dict[str, dict[str, list[tuple[Cell, ...]]]] = field(default_factory=dict)
    current: str | None = None


def read_dump(text: str, source: str) -> list[DumpDatabase]:
    """The databases of a dump in its order; `source` is its file's name.

    Raises:
      ConfigError: a statement is cut off or unreadable (the message names file and line), or the dump holds
        no table.
    """
    reading = _Reading(source)
    for line, statement in _statements(text, source):
        _read_statement(reading, statement, f"{source}:{line}")
    if not any(reading.tables.values()):
        raise ConfigError(f"{source}: found no CREATE TABLE, expected a dump made by mysqldump --databases")
    return [
        DumpDatabase(
            schema=DatabaseSchema(name=name, tables=tuple(tables[key] for key in sorted(tables))),
            rows=reading.rows[name],
        )
        for name, tables in reading.tables.items()
    ]


def _statements(text: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every statement, comments dropped."""
    parts: list[str] = []
    place, line, start = 0, 1, 1
    while place < len(text):
        found = PIECE.match(text, place)
        if found is None:
            raise ConfigError(
                f"{source}:{line}: found a text or name that never closes, expected a whole dump"
            )
        piece = found[0]
        if found["end"]:
            if statement := "".join(parts).strip():
                yield start, statement
            parts = []
        elif not found["comment"]:
            if not parts and piece.strip():
                start = line + piece[: len(piece) - len(piece.lstrip())].count("\n")
            if parts or piece.strip():
                parts.append(piece)
        line += piece.count("\n")
        place = found.end()
    if rest := "".join(parts).strip():
        raise ConfigError(f"{source}:{start}: found {rest[:40]!r} without its ';', expected a whole dump")


def _read_statement(reading: _Reading, statement: str, place: str) -> None:
    if found := DATABASE.match(statement):
        reading.current = found[1]
        reading.tables.setdefault(found[1], {})
        reading.rows.setdefault(found[1], {})
        return
    if not (
        statement[:6].upper() in ("CREATE", "INSERT") and (CREATE.match(statement) or INSERT.match(statement))
    ):
        return
    if reading.current is None:
        raise ConfigError(
            f"{place}: found {statement[:40]!r} before any USE, expected a dump with --databases"
        )
    tables, rows = reading.tables[reading.current], reading.rows[reading.current]
    if found := CREATE.match(statement):
        name = found[1].lower()  # lower_case_table_names=1
        tables[name] = _read_table(statement, name, found.end(), place)
        rows[name] = []
    elif found := INSERT.match(statement):
        name = found[1].lower()
        if name not in tables:
            raise ConfigError(f"{place}: found rows of {found[1]!r}, expected its CREATE TABLE before them")
        if found[2]:
            raise ConfigError(f"{place}: found a column list, expected INSERT INTO `{found[1]}` VALUES")
        rows[name] += _read_rows(statement, found.end(), len(tables[name].columns), place)


def _read_rows(statement: str, at: int, width: int, place: str) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    while at < len(statement):
        if statement[at] in ", \n\r\t" and rows:
            at += 1
            continue
        if statement[at] != "(":
            raise ConfigError(
                f"{place}: found {statement[at : at + 40]!r} after row {len(rows)}, expected '('"
            )
        cells: list[Cell] = []
        at += 1
        while True:
            found = CELL.match(statement, at)
            if found is None:
                raise ConfigError(
                    f"{place}: found {statement[at : at + 40]!r} in row {len(rows) + 1}, expected a value"
                )
            cells.append(_cell(found))
            at = found.end()
            if found[5] == ")":
                break
        if len(cells) != width:
            raise ConfigError(f"{place}: found {len(cells)} values in row {len(rows) + 1}, expected {width}")
        rows.append(tuple(cells))
    return rows


def _cell(found: re.Match[str]) -> Cell:
    if found["null"]:
        return None
    if found["text"] is not None:
        return unescape(found["text"])
    if found["hex"]:
        return bytes.fromhex(found["hex"]).decode("utf-8", "replace")
    number = found["number"]
    return int(number) if re.fullmatch(r"[-+]?\d+", number) else number


def unescape(quoted: str) -> str:
    """The text of a MySQL literal in single quotes."""
    return re.sub(
        r"\\(.)|''",
        lambda found: ESCAPES.get(found[1], found[1]) if found[1] else "'",
        quoted[1:-1],
        flags=re.DOTALL,
    )


def _read_table(statement: str, name: str, start: int, place: str) -> TableSchema:
    columns: list[tuple[str, str, str]] = []
    primary: tuple[str, ...] = ()
    indexes: list[IndexSchema] = []
    foreign: list[ForeignKeySchema] = []
    for part in _split(statement[start : statement.rindex(")")]):
        if found := re.match(r"PRIMARY\s+KEY\s*\((.*)\)", part, re.IGNORECASE | re.DOTALL):
            primary = tuple(NAMES.findall(found[1]))
        elif found := FOREIGN.match(part):
            foreign.append(
                ForeignKeySchema(
                    name=found[1],
                    columns=tuple(NAMES.findall(found[2])),
                    table=found[3].lower(),
                    references=tuple(NAMES.findall(found[4])),
                )
            )
        elif found := INDEX.match(part):
            indexes.append(
                IndexSchema(name=found[2], unique=bool(found[1]), columns=tuple(NAMES.findall(found[3])))
            )
        elif found := COLUMN.match(part):
            columns.append((found[1], found[2], found[3]))
        else:
            raise ConfigError(f"{place}: table {name}: found {part[:60]!r}, expected a column or a key")
    return TableSchema(
        name=name,
        columns=tuple(_column(column, primary, indexes) for column in columns),
        primary_key=primary,
        indexes=tuple(indexes),
        foreign_keys=tuple(foreign),
        create=_lowered(statement, name),
    )


def _lowered(statement: str, name: str) -> str:
    """CREATE TABLE with the names of tables as lower_case_table_names=1 keeps them."""
    start = CREATE.match(statement)
    body = statement[start.end() :] if start else statement
    body = re.sub(rf"(REFERENCES\s+){NAME}", lambda found: f"{found[1]}`{found[2].lower()}`", body)
    return f"CREATE TABLE `{name}` ({body}"


def _column(
    column: tuple[str, str, str], primary: tuple[str, ...], indexes: list[IndexSchema]
) -> ColumnSchema:
    name, kind, rest = column
    first = [index for index in indexes if index.columns[:1] == (name,)]
    if name in primary:
        key = "PRI"
    elif any(index.unique and len(index.columns) == 1 for index in first):
        key = "UNI"
    else:
        key = "MUL" if first else ""
    default = DEFAULT.search(rest)
    value = default[1] if default and default[1].upper() != "NULL" else None
    return ColumnSchema(
        name=name,
        type=kind.lower() if not kind.lower().startswith(("enum", "set")) else kind,
        nullable="NOT NULL" not in rest.upper(),
        key=key,
        default=unescape(value) if value and value.startswith("'") else value,
        extra=_extra(rest.upper(), value),
    )


def _extra(rest: str, default: str | None) -> str:
    """What DESCRIBE says of a column beside its type."""
    parts = ["auto_increment"] if "AUTO_INCREMENT" in rest else []
    if default is not None and default.upper().startswith("CURRENT_TIMESTAMP"):
        parts.append("DEFAULT_GENERATED")
    if "ON UPDATE CURRENT_TIMESTAMP" in rest:
        parts.append("on update CURRENT_TIMESTAMP")
    return " ".join(parts)


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside brackets and quotes."""
    parts, depth, part = [], 0, ""
    for piece in re.findall(r"'(?:[^'\\]|\\.|'')*'|`[^`]*`|[(),]|[^'`(),]+", text, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += piece
    return [*parts, part.strip()] if part.strip() else parts
