"""Question forms: each draws a question in short English and its gold query over a generated database."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from coevo_jax.envs.intercode_sql.databases import Column, TableSpec

Item = TypeVar("Item")
NAME = Column(word="name", name="name", values=("",))


@dataclass(frozen=True, kw_only=True)
class Form:
    """A question form. `build` reads the fields it knows; `weight` is its share among the forms."""

    build: "Callable[[np.random.Generator, Sequence[TableSpec], Form], Question | None]"
    weight: float
    columns: int = 1
    conditions: tuple[str, ...] = ()  # names of CONDITIONS
    connective: str = "AND"
    order: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question and the query that answers it."""

    text: str
    gold: str


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """The same thing said in English and in SQL."""

    text: str
    sql: str


def draw_question(rng: np.random.Generator, tables: Sequence[TableSpec], form: Form) -> Question | None:
    """One question of a form, or None where the drawn table has too few columns for it."""
    return form.build(rng, tables, form)


def _pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _compare(rng: np.random.Generator, column: Column, prefix: str) -> Phrase:
    if column.values:
        value = _pick(rng, column.values)
        return Phrase(text=f"{column.word} {value}", sql=f"{prefix}{column.name} = '{value}'")
    above = bool(rng.integers(2))
    bound = 5 * int(rng.integers(4, 16) if above else rng.integers(6, 18))
    word = _pick(rng, ("above", "over") if above else ("below", "under"))
    return Phrase(
        text=f"{column.word} {word} {bound}", sql=f"{prefix}{column.name} {'>' if above else '<'} {bound}"
    )


def _exclude(rng: np.random.Generator, column: Column, prefix: str) -> Phrase | None:
    if not column.values:
        return None
    value = _pick(rng, column.values)
    return Phrase(text=f"{column.word} not {value}", sql=f"{prefix}{column.name} != '{value}'")


def _between(rng: np.random.Generator, column: Column, prefix: str) -> Phrase | None:
    if column.values:
        return None
    low = 5 * int(rng.integers(3, 12))
    high = low + 5 * int(rng.integers(4, 9))
    return Phrase(
        text=f"{column.word} between {low} and {high}", sql=f"{prefix}{column.name} BETWEEN {low} AND {high}"
    )


CONDITIONS: Mapping[str, Callable[[np.random.Generator, Column, str], Phrase | None]] = {
    "compare": _compare,
    "exclude": _exclude,
    "between": _between,
}


def _conditions(
    rng: np.random.Generator, table: TableSpec, form: Form, prefix: str = ""
) -> tuple[Phrase, list] | None:
    """The form's conditions on different columns of a table, joined by its connective, and these columns."""
    order = rng.permutation(len(table.columns))
    phrases, used = [], []
    for kind in form.conditions:
        for i in order:
            column = table.columns[i]
            if column not in used and (phrase := CONDITIONS[kind](rng, column, prefix)) is not None:
                phrases.append(phrase)
                used.append(column)
                break
        else:
            return None
    text = f" {form.connective.lower()} ".join(phrase.text for phrase in phrases)
    return Phrase(text=text, sql=f" {form.connective} ".join(phrase.sql for phrase in phrases)), used


def _columns(
    rng: np.random.Generator, table: TableSpec, count: int, prefix: str = "", used: Sequence[Column] = ()
) -> Phrase:
    """`count` columns to show, none of them used in a condition; the name is the most frequent one."""
    others = [column for i in rng.permutation(len(table.columns)) if (column := table.columns[i]) not in used]
    shown = ([NAME, *others] if rng.random() < 0.6 or len(others) < count else others)[:count]
    return Phrase(
        text=" and ".join(column.word for column in shown),
        sql=", ".join(f"{prefix}{column.name}" for column in shown),
    )


def _order(rng: np.random.Generator, table: TableSpec, prefix: str = "") -> Phrase:
    column = _pick(rng, table.integers)
    if rng.integers(2):
        return Phrase(text=f" by falling {column.word}", sql=f" ORDER BY {prefix}{column.name} DESC")
    return Phrase(text=f" by rising {column.word}", sql=f" ORDER BY {prefix}{column.name}")


def _request(rng: np.random.Generator, columns: str, subject: str) -> str:
    return _pick(rng, ("List the {} of {}.", "Show the {} of all {}.", "Give the {} for {}.")).format(
        columns, subject
    )


def _rows(rng: np.random.Generator, tables: Sequence[TableSpec], form: Form) -> Question | None:
    """Rows of one table: columns, conditions, order."""
    table = _pick(rng, tables)
    if (found := _conditions(rng, table, form)) is None:
        return None
    condition, used = found
    columns = _columns(rng, table, form.columns, used=used)
    order = _order(rng, table) if form.order else Phrase(text="", sql="")
    subject = f"{table.word}s{f' with {condition.text}' if condition.text else ''}{order.text}"
    where = f" WHERE {condition.sql}" if condition.sql else ""
    return Question(
        text=_request(rng, columns.text, subject),
        gold=f"SELECT {columns.sql} FROM {table.name}{where}{order.sql}",
    )


def _join_tables(child: TableSpec, parent: TableSpec) -> str:
    return f"{child.name} AS T1 JOIN {parent.name} AS T2 ON T1.{parent.name}_id = T2.id"


def _join_where(rng: np.random.Generator, tables: Sequence[TableSpec], form: Form) -> Question | None:
    """Rows of a child by a condition on its parent.

    Where the child has no such column the question may leave the parent out: the schema tells.
    """
    child = _pick(rng, tables[1:])
    parent = tables[0]
    if (found := _conditions(rng, parent, form, "T2.")) is None:
        return None
    condition, used = found
    columns = _columns(rng, child, form.columns, "T1.")
    order = _order(rng, child, "T1.") if form.order else Phrase(text="", sql="")
    hidden = not any(child.has(column.word) for column in used) and rng.integers(2)
    relation = "with" if hidden else f"whose {parent.word} has"
    return Question(
        text=_request(rng, columns.text, f"{child.word}s {relation} {condition.text}{order.text}"),
        gold=f"SELECT {columns.sql} FROM {_join_tables(child, parent)} WHERE {condition.sql}{order.sql}",
    )


def _join_select(rng: np.random.Generator, tables: Sequence[TableSpec], form: Form) -> Question | None:
    """A column of a child beside one of its parent, by a condition on the child."""
    child = _pick(rng, tables[1:])
    parent = tables[0]
    if (found := _conditions(rng, child, form, "T1.")) is None:
        return None
    condition, used = found
    mine, theirs = _columns(rng, child, 1, "T1.", used), _columns(rng, parent, 1, "T2.")
    return Question(
        text=_request(
            rng, f"{mine.text} and {parent.word} {theirs.text}", f"{child.word}s with {condition.text}"
        ),
        gold=f"SELECT {mine.sql}, {theirs.sql} FROM {_join_tables(child, parent)} WHERE {condition.sql}",
    )


FUNCTIONS = (("highest", "MAX"), ("lowest", "MIN"), ("average", "AVG"))


def _aggregate(rng: np.random.Generator, tables: Sequence[TableSpec], form: Form) -> Question | None:
    """One number about the rows of a table: a count, or the highest, lowest or average value."""
    table = _pick(rng, tables)
    if (found := _conditions(rng, table, form)) is None:
        return None
    condition, used = found
    source = f"{table.name} WHERE {condition.sql}"
    free = [column for column in table.integers if column not in used]
    if not free or rng.integers(2):
        return Question(
            text=f"How many {table.word}s have {condition.text}?", gold=f"SELECT COUNT(*) FROM {source}"
        )
    column, (word, function) = _pick(rng, free), _pick(rng, FUNCTIONS)
    return Question(
        text=f"What is the {word} {column.word} of {table.word}s with {condition.text}?",
        gold=f"SELECT {function}({column.name}) FROM {source}",
    )


def _group(rng: np.random.Generator, tables: Sequence[TableSpec], form: Form) -> Question | None:
    """One row for each value of a text column: a count, or the highest or lowest value."""
    table = _pick(rng, tables)
    if (found := _conditions(rng, table, form)) is None:
        return None
    condition, used = found
    keys = [column for column in table.texts if column not in used]
    if not keys:
        return None
    key = _pick(rng, keys)
    subject = f"{table.word}s{f' with {condition.text}' if condition.text else ''}"
    end = f"{table.name}{f' WHERE {condition.sql}' if condition.sql else ''} GROUP BY {key.name}"
    if rng.integers(2):
        return Question(
            text=f"Count the {subject} for each {key.word}.", gold=f"SELECT {key.name}, COUNT(*) FROM {end}"
        )
    column, (word, function) = _pick(rng, table.integers), _pick(rng, FUNCTIONS[:2])
    return Question(
        text=f"Give the {word} {column.word} of {subject} for each {key.word}.",
        gold=f"SELECT {key.name}, {function}({column.name}) FROM {end}",
    )


FORMS: Mapping[str, Form] = {
    "list": Form(build=_rows, weight=4),
    "filter": Form(build=_rows, weight=18, conditions=("compare",)),
    "two-columns+filter": Form(build=_rows, weight=10, columns=2, conditions=("compare",)),
    "and": Form(build=_rows, weight=12, conditions=("compare", "compare")),
    "or": Form(build=_rows, weight=7, conditions=("compare", "compare"), connective="OR"),
    "not": Form(build=_rows, weight=5, conditions=("exclude",)),
    "between": Form(build=_rows, weight=7, conditions=("between",)),
    "order": Form(build=_rows, weight=8, order=True),
    "filter+order": Form(build=_rows, weight=8, conditions=("compare",), order=True),
    "join": Form(build=_join_where, weight=10, conditions=("compare",)),
    "join-columns": Form(build=_join_select, weight=4, conditions=("compare",)),
    "group": Form(build=_group, weight=6),
    "aggregate": Form(build=_aggregate, weight=5, conditions=("compare",)),
}
"""The forms of every split."""

UNSEEN_FORMS: Mapping[str, Form] = {
    "and+order": Form(build=_rows, weight=1, conditions=("compare", "compare"), order=True),
    "two-columns+between": Form(build=_rows, weight=1, columns=2, conditions=("between",)),
    "join+order": Form(build=_join_where, weight=1, conditions=("compare",), order=True),
    "group+filter": Form(build=_group, weight=1, conditions=("compare",)),
}
"""Combinations of known parts that stand in the test split only."""
