"""Runs joins: rows of the sources of FROM put together, in the order a plan has chosen."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.tables import StoredTable, hashed
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Row, Term
from coevo_jax.envs.intercode_sql.mysql.values import truth
from coevo_jax.envs.intercode_sql.mysql.work_limit import Budget

CELLS = 3  # of a row behind its sources: rolled-up keys, aggregates, windows


@dataclass(slots=True, eq=False)
class Step:
    """One source of a join, or one nest of them on the inner side of an outer join."""

    leaves: tuple[int, ...]
    table: StoredTable | None = None
    index: str | None = None  # whose order its rows come in
    rows: Callable[[], Sequence[tuple]] | None = None  # of a source that is no stored table
    nest: "list[Step]" = field(default_factory=list)
    keys: list[tuple[int, Callable | None, Term, Callable | None]] = field(default_factory=list)
    either: list[tuple[int, Callable | None, Term, Callable | None]] = field(default_factory=list)  # of an OR
    filters: list[Term] = field(default_factory=list)  # on its own columns alone
    conditions: list[Term] = field(default_factory=list)  # together with the sources before it
    outer: bool = False  # whether rows without a match are kept, with NULLs
    widths: tuple[int, ...] = ()
    hashes: bool = False  # whether MySQL would join it by hashing the rows before it
    after: list[Term] = field(default_factory=list)  # of WHERE, tested on rows kept with NULLs too


class Joiner:
    """Joins the sources of one query."""

    def __init__(self, steps: list[Step], sources: int, budget: Budget):
        self._steps = steps
        self._sources = sources
        self._budget = budget

    def rows(self) -> Iterator[Row]:
        """The joined rows, each a list of its own."""
        return self._run(self._steps)

    def _blank(self) -> Row:
        return [None] * self._sources + [0, None, None]

    def _run(self, steps: Sequence[Step]) -> Iterator[Row]:
        if not steps:
            return iter([self._blank()])
        if not steps[0].outer and not steps[0].nest:
            flow: Iterable[Row] = self._first(steps[0])
        else:
            flow = self._extend(iter([self._blank()]), steps[0])
        for step in steps[1:]:
            flow = self._hash_join(flow, step) if step.hashes and not step.outer else self._extend(flow, step)
        return iter(flow)

    def _first(self, step: Step) -> Iterator[Row]:
        leaf, width = step.leaves[0], self._sources
        tests = [term.compute for term in (*step.filters, *step.conditions)]
        found = self._matching(step, self._blank())
        self._budget.spend(len(found))
        if width == 1:
            return _single(found, tests)
        return self._placed(found, leaf, tests)

    def _placed(self, found: Sequence[tuple], leaf: int, tests: list[Compute]) -> Iterator[Row]:
        for values in found:
            row = self._blank()
            row[leaf] = values
            if not tests or all_true(tests, row):
                yield row

    def _all(self, step: Step) -> Sequence[tuple]:
        if step.table is not None:
            return step.table.ordered(step.index)
        return step.rows() if step.rows is not None else ()

    def _matching(self, step: Step, row: Row) -> Sequence[tuple]:
        """The rows of a step whose keys equal those of the row before it."""
        if not step.keys:
            return self._all(step)
        key = _key(step, row)
        if key is None:
            return ()
        return self._hash(step).get(key, ())

    def _hash(self, step: Step) -> dict[Any, list[tuple]]:
        places = tuple(place for place, _, _, _ in step.keys)
        readers = [read for _, read, _, _ in step.keys]
        if step.table is not None:
            return step.table.lookup(step.index, places, readers)
        rows = self._all(step)
        self._budget.spend(len(rows))
        return hashed(rows, places, readers)

    def _extend(self, flow: Iterator[Row] | Iterable[Row], step: Step) -> Iterator[Row]:
        """Every row with every match of it, in the flow's order."""
        tests = [term.compute for term in (*step.filters, *step.conditions)]
        later = [term.compute for term in step.after]
        nest = self._nested(step) if step.nest else None
        hash_of = self._hash(step) if step.keys and nest is None else None
        whole = self._all(step) if nest is None and not step.keys else None
        blank = [(None,) * width for width in step.widths]
        spend = self._budget.spend
        for row in flow:
            if nest is not None:
                candidates: Iterable[tuple] = nest
                spend(len(nest))
            elif hash_of is not None:
                key = _key(step, row)
                candidates = () if key is None else hash_of.get(key, ())
                spend(1 + len(candidates))  # pyright: ignore[reportArgumentType]
            else:
                candidates = whole or ()
                spend(1 + len(candidates))  # pyright: ignore[reportArgumentType]
            if step.outer and step.hashes:  # MySQL hashes these rows, and finds the last one first
                candidates = reversed(candidates)  # pyright: ignore[reportArgumentType]
            matched = False
            for values in candidates:
                longer = row.copy()
                if nest is not None:
                    for leaf, part in zip(step.leaves, values, strict=True):
                        longer[leaf] = part
                else:
                    longer[step.leaves[0]] = values
                if all_true(tests, longer):
                    matched = True
                    if not later or all_true(later, longer):
                        yield longer
            if step.outer and not matched:
                longer = row.copy()
                for leaf, nothing in zip(step.leaves, blank, strict=True):
                    longer[leaf] = nothing
                if not later or all_true(later, longer):
                    yield longer

    def _nested(self, step: Step) -> list[tuple]:
        return [tuple(row[leaf] for leaf in step.leaves) for row in self._run(step.nest)]

    def _hash_either(
        self, before: list[Row], step: Step, filters: list[Compute], tests: list[Compute]
    ) -> Iterator[Row]:
        """The same for equalities between which an OR stands: each finds some of the rows before."""
        built: list[dict[Any, list[int]]] = [{} for _ in step.either]
        for number, row in enumerate(before):
            for places, (_, _, term, read) in zip(built, step.either, strict=True):
                places.setdefault(_read(term.compute(row), read), []).append(number)
        leaf, scratch = step.leaves[0], self._blank()
        for values in self._all(step):
            scratch[leaf] = values
            if filters and not all_true(filters, scratch):
                continue
            numbers: set[int] = set()
            for places, (place, read, _, _) in zip(built, step.either, strict=True):
                key = _read(values[place], read)
                numbers.update(places.get(key, ()) if key is not None else ())
            self._budget.spend(1 + len(numbers))
            for number in sorted(numbers, reverse=True):
                longer = before[number].copy()
                longer[leaf] = values
                if all_true(tests, longer):
                    yield longer

    def _hash_join(self, flow: Iterable[Row], step: Step) -> Iterator[Row]:
        """As MySQL hashes the rows before: in this source's order, the last of the matching rows first."""
        leaf = step.leaves[0]
        filters = [term.compute for term in step.filters]
        tests = [term.compute for term in step.conditions]
        before = list(flow)
        if step.either and not step.keys:
            yield from self._hash_either(before, step, filters, tests)
            return
        built: dict[Any, list[Row]] = {}
        for row in before:
            key = _key(step, row) if step.keys else ()
            if key is not None:
                built.setdefault(key, []).append(row)
        scratch = self._blank()
        places = [(place, read) for place, read, _, _ in step.keys]
        for values in self._all(step):
            scratch[leaf] = values
            if filters and not all_true(filters, scratch):
                continue
            key = _own_key(places, values) if places else ()
            found = () if key is None else built.get(key, ())
            self._budget.spend(1 + len(found))
            for row in reversed(found):
                longer = row.copy()
                longer[leaf] = values
                if all_true(tests, longer):
                    yield longer


def _read(value: Any, read: Callable | None) -> Any:
    return value if value is None or read is None else read(value)


def _single(found: Sequence[tuple], tests: list[Compute]) -> Iterator[Row]:
    """The rows of a query of one source that pass the tests."""
    if not tests:
        return ([values, 0, None, None] for values in found)
    if len(tests) > 1:
        return (row for values in found if all_true(tests, row := [values, 0, None, None]))
    test = tests[0]
    return (
        row
        for values in found
        if (passed := test(row := [values, 0, None, None])) and (passed == 1 or truth(passed))
    )


def _key(step: Step, row: Row) -> Any:
    """The key of the sources before a step; None where it holds NULL, which nothing equals."""
    if len(step.keys) == 1:
        _, _, term, read = step.keys[0]
        value = term.compute(row)
        return value if value is None or read is None else read(value)
    values = []
    for _, _, term, read in step.keys:
        value = term.compute(row)
        if value is None:
            return None
        values.append(value if read is None else read(value))
    return None if None in values else tuple(values)


def _own_key(places: Sequence[tuple[int, Callable | None]], values: tuple) -> Any:
    if len(places) == 1:
        place, read = places[0]
        value = values[place]
        return value if value is None or read is None else read(value)
    found = [values[place] for place, _ in places]
    if None in found:
        return None
    return tuple(v if read is None else read(v) for v, (_, read) in zip(found, places, strict=True))


def all_true(tests: Sequence[Compute], row: Row) -> bool:
    """Whether a row passes all tests."""
    for test in tests:
        value = test(row)
        if not value or (value != 1 and not truth(value)):
            return False
    return True
