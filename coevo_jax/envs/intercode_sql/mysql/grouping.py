"""ONLY_FULL_GROUP_BY: which columns groups, keys and equalities determine, and what is refused."""

from collections.abc import Iterable, Sequence

from coevo_jax.envs.intercode_sql.mysql.terms import Scope, Term
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

MODE = "this is incompatible with sql_mode=only_full_group_by"
Column = tuple[int, int]


def determined(scope: Scope, known: Iterable[Column], conditions: Sequence[Term]) -> set[Column]:
    """The columns that have one value where the known ones have."""
    found = set(known)
    equal: list[tuple[Column, Column]] = []
    for term in conditions:
        if not isinstance(term.key, tuple) or term.key[0] != "=" or len(term.children) != 2:
            continue
        left, right = term.children
        for own, other in ((left, right), (right, left)):
            if own.column is not None and (other.constant or (other.outer and not other.uses)):
                found.add(own.column)
            elif own.column is not None and other.column is not None:
                equal.append((own.column, other.column))
    while True:
        before = len(found)
        found |= {right for left, right in equal if left in found}
        for number, source in enumerate(scope.sources):
            for key in _keys(scope, number):
                if all((number, place) in found for place in key):
                    found |= {(number, place) for place in range(len(source.columns))}
        if len(found) == before:
            return found


def _keys(scope: Scope, number: int) -> list[list[int]]:
    """Columns that have another value in every row of a source."""
    source = scope.sources[number]
    places = {name.lower(): place for place, (name, _) in enumerate(source.columns)}
    if source.base is None:
        return source.plan.keys if source.plan is not None else []
    keys = [source.base.primary_key] if source.base.primary_key else []
    never_null = {column.name for column in source.base.columns if not column.nullable}
    keys += [
        index.columns for index in source.base.indexes if index.unique and set(index.columns) <= never_null
    ]
    return [[places[name.lower()] for name in key] for key in keys]


def offending(term: Term, grouped: set, columns: set[Column]) -> Term | None:
    """The first column of a term that is neither grouped, aggregated nor determined."""
    if term.key in grouped or term.aggregate:
        return None
    if term.column is not None:
        return None if term.column in columns else term
    for part in (*term.children, *term.reads):
        found = offending(part, grouped, columns)
        if found is not None:
            return found
    return None


def check_groups(
    scope: Scope,
    items: Sequence[Term],
    order: Sequence[Term],
    conditions: Sequence[Term],
    having: Term | None,
) -> None:
    """Refuse a column that a group does not determine.

    Raises:
      SqlError: the first such column, as MySQL's error 1055 or 1140.
    """
    grouped = {term.key for term in scope.grouped}
    known = [term.column for term in scope.grouped if term.column is not None]
    columns = determined(scope, known, conditions)
    for words, terms in (
        ("SELECT list", items),
        ("HAVING clause", [having] if having else []),
        ("ORDER BY", order),
    ):
        for number, term in enumerate(terms, start=1):
            found = offending(term, grouped, columns)
            if found is None:
                continue
            if scope.grouped:
                raise SqlError(
                    f"Expression #{number} of {words} is not in GROUP BY clause and contains nonaggregated "
                    f"column '{found.label}' which is not functionally dependent on columns in GROUP BY "
                    f"clause; {MODE}"
                )
            raise SqlError(
                f"In aggregated query without GROUP BY, expression #{number} of {words} contains "
                f"nonaggregated column '{found.label}'; {MODE}"
            )


def check_distinct(items: Sequence[Term], order: Sequence[Term]) -> None:
    """Refuse a term of ORDER BY that SELECT DISTINCT does not show.

    Raises:
      SqlError: the first such term, as MySQL's error 3065 or 3066.
    """
    shown = {term.key for term in items}
    for number, term in enumerate(order, start=1):
        if term.key in shown:
            continue
        begin = f"Expression #{number} of ORDER BY clause is not in SELECT list, "
        if term.aggregated:
            raise SqlError(f"{begin}contains aggregate function; this is incompatible with DISTINCT")
        found = offending(term, shown, set())
        if found is not None:
            raise SqlError(
                f"{begin}references column '{found.label}' which is not in SELECT list; "
                "this is incompatible with DISTINCT"
            )
