"""What MySQL knows of a table beside its rows, and the types of values in queries."""

import re
from dataclasses import dataclass
from typing import Literal

from coevo_jax.config.strict import StrictModel

COLLATION = "utf8mb4_general_ci"
"""Name, in MySQL and here, of the collation that texts compare by."""

Kind = Literal["int", "decimal", "double", "float", "text", "bytes", "date", "datetime", "time", "null"]


@dataclass(frozen=True, kw_only=True)
class SqlType:
    """Type of an expression. `scale`: digits after the point; of a double None where they float."""

    kind: Kind
    scale: int | None = None
    unsigned: bool = False

    @property
    def numeric(self) -> bool:
        return self.kind in ("int", "decimal", "double", "float")

    @property
    def temporal(self) -> bool:
        return self.kind in ("date", "datetime", "time")

    @property
    def real(self) -> bool:
        return self.kind in ("double", "float")


INT, DOUBLE, TEXT = SqlType(kind="int"), SqlType(kind="double"), SqlType(kind="text")
DATE, DATETIME, TIME = SqlType(kind="date"), SqlType(kind="datetime"), SqlType(kind="time")
NULL, BYTES = SqlType(kind="null"), SqlType(kind="bytes")
UNSIGNED_INT = SqlType(kind="int", unsigned=True)

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "bit", "year"), "int"),
    **dict.fromkeys(("bool", "boolean"), "int"),
    **dict.fromkeys(("decimal", "numeric", "dec", "fixed"), "decimal"),
    **dict.fromkeys(("double", "real"), "double"),
    "float": "float",
    "date": "date",
    **dict.fromkeys(("datetime", "timestamp"), "datetime"),
    "time": "time",
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "bytes"),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"), "text"),
}
"""Kind of a column by the first word of its MySQL type."""


class ColumnSchema(StrictModel):
    """A column as DESCRIBE shows it."""

    name: str
    """Name."""
    type: str
    """MySQL type, e.g. varchar(20)."""
    nullable: bool
    """Whether NULL may stand in it."""
    key: Literal["PRI", "UNI", "MUL", ""]
    """Kind of index that starts with it."""
    default: str | None
    """Default value as text."""
    extra: str
    """Such as auto_increment."""

    @property
    def sql_type(self) -> SqlType:
        """The type of its values."""
        word, scale = split_type(self.type)
        kind = KINDS.get(word, "text")
        unsigned = "unsigned" in self.type.lower() or word == "year"
        if kind == "decimal":
            return SqlType(kind=kind, scale=scale or 0, unsigned=unsigned)
        return SqlType(kind=kind, scale=scale if kind in ("float", "double") else None, unsigned=unsigned)


class IndexSchema(StrictModel):
    """A secondary index."""

    name: str
    """Name."""
    unique: bool
    """Whether it refuses duplicates."""
    columns: tuple[str, ...]
    """Its columns."""


class ForeignKeySchema(StrictModel):
    """A foreign key."""

    name: str
    """Name of the constraint."""
    columns: tuple[str, ...]
    """The referencing columns."""
    table: str
    """The referenced table."""
    references: tuple[str, ...]
    """The referenced columns."""


class TableSchema(StrictModel):
    """A table."""

    name: str
    """Name."""
    columns: tuple[ColumnSchema, ...]
    """Its columns in order."""
    primary_key: tuple[str, ...]
    """Columns of the primary key; empty where there is none."""
    indexes: tuple[IndexSchema, ...]
    """Secondary indexes."""
    foreign_keys: tuple[ForeignKeySchema, ...]
    """Foreign keys."""
    create: str
    """Its CREATE TABLE statement in MySQL's dialect."""


class DatabaseSchema(StrictModel):
    """A database."""

    name: str
    """Name."""
    tables: tuple[TableSchema, ...]
    """Its tables, sorted by name."""

    def table(self, name: str) -> TableSchema | None:
        """The table of a name, whose case does not matter (lower_case_table_names)."""
        return next((table for table in self.tables if table.name.lower() == name.lower()), None)


def split_type(text: str) -> tuple[str, int | None]:
    """First word of a MySQL type, and the digits after the point where it gives them."""
    found = re.match(r"(\w+)\s*(?:\(\s*\d+\s*(?:,\s*(\d+)\s*)?\))?", text)
    if found is None:
        return "", None
    return found[1].lower(), int(found[2]) if found[2] else None
