"""The generated gold queries as records: read from SQL, changed clause by clause, and written again."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

GOLD = re.compile(
    r"SELECT (?P<columns>.+?) FROM (?P<source>.+?)(?: WHERE (?P<where>.+?))?(?: GROUP BY (?P<group>\S+))?"
    r"(?: ORDER BY (?P<order>\S+?)(?P<falling> DESC)?)?"
)
CONNECTIVE = re.compile(r" (AND|OR) (?!\d)")  # the AND of a BETWEEN is followed by a number
CONDITION = re.compile(r"(?P<column>\S+) (?:(?P<operator>[<>]|!?=) (?P<value>.+)|BETWEEN (\d+) AND (\d+))")
ALIAS = re.compile(r"(\w+) AS (T\d)")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of a WHERE clause; its values stand as in SQL, texts in quotes."""

    column: str  # with its prefix, such as T2.age
    operator: str  # one of = != < > BETWEEN
    values: tuple[str, ...]  # two for BETWEEN, else one

    @property
    def sql(self) -> str:
        return f"{self.column} {self.operator} {' AND '.join(self.values)}"


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query of the generator's forms, clause by clause."""

    columns: tuple[str, ...]  # what is selected: columns or functions of them
    source: str  # what follows FROM: a table, or a child joined with its parent
    conditions: tuple[Condition, ...] = ()
    connective: str = "AND"
    group: str = ""  # column; "" for none
    order: str = ""  # column; "" for none
    falling: bool = False

    @property
    def sql(self) -> str:
        where = f" {self.connective} ".join(condition.sql for condition in self.conditions)
        return (
            f"SELECT {', '.join(self.columns)} FROM {self.source}{f' WHERE {where}' if where else ''}"
            f"{f' GROUP BY {self.group}' if self.group else ''}"
            f"{f' ORDER BY {self.order}' if self.order else ''}{' DESC' if self.falling else ''}"
        )

    @property
    def joins(self) -> bool:
        return " JOIN " in self.source

    def table_of(self, column: str) -> str:
        """The table of a column by its prefix; without one, the only table."""
        prefix = column.rpartition(".")[0]
        return next((table for table, alias in ALIAS.findall(self.source) if alias == prefix), self.source)

    def named(self) -> tuple[str, ...]:
        """Every column that a clause names, once, with its prefix; not those that only join tables."""
        clauses = (*self.columns, *(one.column for one in self.conditions), self.group, self.order)
        inner = (re.sub(r"^\w+\((.*)\)$", r"\1", clause) for clause in clauses)
        return tuple(dict.fromkeys(name for name in inner if name and name != "*"))


def read_query(sql: str) -> Query | None:
    """The query of a gold answer; None where it is of no form of the generator's."""
    found = GOLD.fullmatch(sql)
    if found is None:
        return None
    parts = CONNECTIVE.split(found["where"]) if found["where"] else []
    conditions = [_read_condition(text) for text in parts[::2]]
    query = Query(
        columns=tuple(found["columns"].split(", ")),
        source=found["source"],
        conditions=tuple(one for one in conditions if one is not None),
        connective=parts[1] if len(parts) > 1 else "AND",
        group=found["group"] or "",
        order=found["order"] or "",
        falling=found["falling"] is not None,
    )
    return query if query.sql == sql else None


def _read_condition(text: str) -> Condition | None:
    found = CONDITION.fullmatch(text)
    if found is None:
        return None
    column, operator, value, low, high = found.groups()
    if operator is None:
        return Condition(column=column, operator="BETWEEN", values=(low, high))
    return Condition(column=column, operator=operator, values=(value,))


def rename(query: Query, old: str, new: str) -> Query:
    """The query with another name for one column, both with the same prefix."""
    return _each_name(query, lambda text: re.sub(rf"(?<![\w.]){re.escape(old)}(?!\w)", new, text))


def without_column(query: Query, column: str) -> Query:
    """The query around a column: no condition on it and no order by it, and `name` where it is shown."""
    kept = tuple(one for one in query.conditions if one.column != column)
    query = replace(query, conditions=kept)
    if query.order == column:
        query = replace(query, order="", falling=False)
    prefix, dot, _ = column.rpartition(".")
    return rename(query, column, f"{prefix}{dot}name")


def _each_name(query: Query, change: Callable[[str], str]) -> Query:
    return replace(
        query,
        columns=tuple(map(change, query.columns)),
        conditions=tuple(replace(one, column=change(one.column)) for one in query.conditions),
        group=change(query.group),
        order=change(query.order),
    )
