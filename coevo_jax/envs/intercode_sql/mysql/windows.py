"""Window functions: the rows of a partition in order, a frame around each, one value."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.aggregates import aggregate, grouped_key
from coevo_jax.envs.intercode_sql.mysql.filesort import filesort
from coevo_jax.envs.intercode_sql.mysql.forms import as_type
from coevo_jax.envs.intercode_sql.mysql.nodes import Call
from coevo_jax.envs.intercode_sql.mysql.schema import DOUBLE, INT, UNSIGNED_INT, SqlType
from coevo_jax.envs.intercode_sql.mysql.terms import Row, Term, merged_type
from coevo_jax.envs.intercode_sql.mysql.words import AGGREGATES

RANKS = frozenset({"row_number", "rank", "dense_rank", "ntile"})
Frame = tuple[str, tuple[str, nodes.Node | None], tuple[str, nodes.Node | None]]


class WindowCall:
    """A window function of one query."""

    def __init__(
        self,
        node: Call,
        terms: list[Term],
        partition: list[Term],
        order: list[tuple[Term, bool]],
        frame: Frame | None,
    ):
        self.partition, self.order = partition, order
        self._name, self._terms, self._frame = node.name, terms, frame
        self._aggregate = aggregate(node, terms, []) if node.name in AGGREGATES else None
        self.type = self._type()

    def _type(self) -> SqlType:
        if self._aggregate is not None:
            return self._aggregate.type
        if self._name in RANKS:
            return UNSIGNED_INT
        if self._name in ("percent_rank", "cume_dist"):
            return DOUBLE
        if self._name in ("lag", "lead") and len(self._terms) > 2:
            return merged_type([self._terms[0].type, self._terms[2].type])
        return self._terms[0].type if self._terms else INT

    def apply(self, rows: list[Row], place: int) -> list[Row]:
        """The rows in the window's order, each with its value at a place of its last cell."""
        if self.partition or self.order:
            rows = filesort(rows, [*((term, False) for term in self.partition), *self.order])
        parts: dict[Any, list[Row]] = {}
        key = grouped_key(self.partition) if self.partition else (lambda row: None)
        for row in rows:
            parts.setdefault(key(row), []).append(row)
        for part in parts.values():
            for row, value in zip(part, self._values(part), strict=True):
                row[-1][place] = value
        return rows

    def _values(self, part: list[Row]) -> list[Any]:
        peers = self._peers(part)
        if self._name in RANKS or self._name in ("percent_rank", "cume_dist"):
            return self._ranks(part, peers)
        if self._name in ("lag", "lead"):
            return self._neighbours(part)
        spans = self._spans(part, peers)
        if self._aggregate is not None:
            over = self._aggregate.over
            last: tuple[tuple[int, int] | None, Any] = (None, None)
            found = []
            for span in spans:
                if span != last[0]:
                    last = (span, over(part[span[0] : span[1]]))
                found.append(last[1])
            return found
        compute = self._terms[0].compute
        if self._name == "nth_value":
            count = self._terms[1].value - 1
            return [compute(part[a + count]) if a + count < b else None for a, b in spans]
        first = self._name == "first_value"
        return [compute(part[a if first else b - 1]) if a < b else None for a, b in spans]

    def _peers(self, part: list[Row]) -> list[tuple[int, int]]:
        """For every row where its peers start and end."""
        if not self.order:
            return [(0, len(part))] * len(part)
        key = grouped_key([term for term, _ in self.order])
        keys = [key(row) for row in part]
        peers: list[tuple[int, int]] = []
        start = 0
        while start < len(part):
            end = start
            while end < len(part) and keys[end] == keys[start]:
                end += 1
            peers += [(start, end)] * (end - start)
            start = end
        return peers

    def _ranks(self, part: list[Row], peers: list[tuple[int, int]]) -> list[Any]:
        count = len(part)
        if self._name == "row_number":
            return list(range(1, count + 1))
        if self._name == "rank":
            return [start + 1 for start, _ in peers]
        if self._name == "dense_rank":
            starts = sorted({start for start, _ in peers})
            return [starts.index(start) + 1 for start, _ in peers]
        if self._name == "percent_rank":
            return [start / (count - 1) if count > 1 else 0.0 for start, _ in peers]
        if self._name == "cume_dist":
            return [end / count for _, end in peers]
        tiles = self._terms[0].value
        small, larger = divmod(count, tiles)
        sizes = [small + (tile < larger) for tile in range(tiles)]
        return [tile + 1 for tile, size in enumerate(sizes) for _ in range(size)]

    def _neighbours(self, part: list[Row]) -> list[Any]:
        count = self._terms[1].value if len(self._terms) > 1 else 1
        away = count if self._name == "lead" else -count
        compute = as_type(self._terms[0], self.type)
        default = as_type(self._terms[2], self.type) if len(self._terms) > 2 else (lambda row: None)
        return [
            compute(part[i + away]) if 0 <= i + away < len(part) else default(row)
            for i, row in enumerate(part)
        ]

    def _spans(self, part: list[Row], peers: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """For every row where its frame starts and ends."""
        if self._frame is None:
            return [(0, end) for _, end in peers]
        unit, start, end = self._frame
        if unit == "rows":
            low, high = self._rows_bound(start), self._rows_bound(end)
            count = len(part)
            return [(max(0, low(i, count)), min(count, max(0, high(i, count) + 1))) for i in range(count)]
        if start[1] is None and end[1] is None:
            return [
                (
                    0 if start[0].startswith("unbounded") else a,
                    len(part) if end[0].startswith("unbounded") else b,
                )
                for a, b in peers
            ]
        return self._range_spans(part, peers, start, end)

    def _rows_bound(self, bound: tuple[str, nodes.Node | None]) -> Callable[[int, int], int]:
        kind, count = bound
        if kind == "unbounded preceding":
            return lambda i, n: 0
        if kind == "unbounded following":
            return lambda i, n: n - 1
        if kind == "current":
            return lambda i, n: i
        if not isinstance(count, nodes.Literal) or count.kind != "int":
            raise errors.not_supported("this frame")
        away = count.value if kind == "following" else -count.value
        return lambda i, n: i + away

    def _range_spans(
        self, part: list[Row], peers: Sequence[tuple[int, int]], start: tuple, end: tuple
    ) -> list[tuple[int, int]]:
        term, descending = self.order[0]
        sign = -1 if descending else 1
        values = [term.compute(row) for row in part]
        numbers = [float("-inf") if value is None else sign * float(value) for value in values]
        spans = []
        for number, (a, b) in zip(numbers, peers, strict=True):
            low = self._range_edge(start, number, numbers, a, bisect_left)
            high = self._range_edge(end, number, numbers, b, bisect_right)
            spans.append((low, high))
        return spans

    def _range_edge(
        self, bound: tuple[str, Any], number: float, numbers: list[float], edge: int, find: Callable
    ) -> int:
        kind, count = bound
        if kind.startswith("unbounded"):
            return 0 if kind.endswith("preceding") else len(numbers)
        if kind == "current":
            return edge
        if not isinstance(count, nodes.Literal):
            raise errors.not_supported("this frame")
        return find(numbers, number + (float(count.value) if kind == "following" else -float(count.value)))
