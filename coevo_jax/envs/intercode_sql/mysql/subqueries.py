"""Queries inside expressions: scalar, EXISTS, IN, ANY and ALL."""

from collections.abc import Callable, Sequence
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.comparisons import OPERATORS, compare, readers
from coevo_jax.envs.intercode_sql.mysql.nodes import Node
from coevo_jax.envs.intercode_sql.mysql.schema import INT
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Row, Scope, Term, combine
from coevo_jax.envs.intercode_sql.mysql.work_limit import Budget
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

SEVERAL = "Subquery returns more than 1 row"
LIMITED = "LIMIT & IN/ALL/ANY/SOME subquery"


class SubqueryBinder:
    """The part of a binder that knows queries inside expressions."""

    scope: Scope
    budget: Budget
    outer_scopes: set[int]
    build: Callable[..., Any]  # the plan of a query inside a scope

    def bind(self, node: Node) -> Term:
        """The term of an expression."""
        raise NotImplementedError

    def bind_scalar(self, node: Node) -> Term:
        """The term of an expression that must be one value."""
        raise NotImplementedError

    def _plan(self, query: nodes.Query) -> tuple[Any, Callable[[Row], Sequence[tuple]], list[Term], bool]:
        """The plan, what gives its rows beside a row of ours, our columns in it, and if it reads others."""
        before = len(self.scope.reads)
        plan = self.build(query, self.scope)
        reads = self.scope.reads[before:]
        mine = id(self.scope)
        beyond = plan.outer_scopes - {mine}
        self.outer_scopes |= beyond
        frame = self.scope.frame
        if not plan.outer_scopes:
            kept: list[Any] = []

            def once(row: Row) -> Sequence[tuple]:
                if not kept:
                    kept.append(plan.rows())
                return kept[0]

            return plan, once, reads, False

        def correlated(row: Row) -> Sequence[tuple]:
            before = frame[0]
            frame[0] = row
            try:
                return plan.rows()
            finally:
                frame[0] = before

        return plan, correlated, reads, bool(beyond)

    def _term(
        self, compute: Compute, kind: Any, reads: list[Term], outer: bool, terms: Sequence[Term] = ()
    ) -> Term:
        term = combine(compute, kind, "subquery", terms)
        term.key = ("subquery", id(term))
        term.constant = False
        term.reads = reads
        term.outer = term.outer or outer
        for read in reads:
            term.uses |= read.uses
        return term

    def subquery(self, node: nodes.Subquery) -> Term:
        """A scalar subquery, or EXISTS."""
        plan, rows_of, reads, outer = self._plan(node.query)
        if node.role == "exists":
            return self._term(lambda row: int(bool(rows_of(row))), INT, reads, outer)
        if len(plan.columns) != 1:
            raise errors.operand_columns(1)

        def scalar(row: Row) -> Any:
            rows = rows_of(row)
            if len(rows) > 1:
                raise SqlError(SEVERAL)
            return rows[0][0] if rows else None

        return self._term(scalar, plan.columns[0][1], reads, outer)

    def _refuse_limit(self, query: nodes.Query) -> None:
        if query.limit is not None:
            raise errors.not_supported(LIMITED)

    def in_subquery(self, left: Node, node: nodes.Subquery) -> Term:
        """left IN (query); left may be a row."""
        place, self.scope.place = self.scope.place, "IN/ALL/ANY subquery"
        lefts = [self.bind(item) for item in (left.items if isinstance(left, nodes.Row) else [left])]
        self.scope.place = place
        plan, rows_of, reads, outer = self._plan(node.query)
        if len(plan.columns) != len(lefts):
            raise errors.operand_columns(len(lefts))
        self._refuse_limit(node.query)
        pairs = [readers(term.type, kind) for term, (_, kind) in zip(lefts, plan.columns, strict=True)]
        computes = [term.compute for term in lefts]
        kept: list[tuple[set, bool]] = []

        def known(row: Row) -> tuple[set, bool]:
            if kept:
                return kept[0]
            keys, has_null = set(), False
            for found in rows_of(row):
                if None in found:
                    has_null = True
                else:
                    keys.add(tuple(read(v) if read else v for v, (_, read) in zip(found, pairs, strict=True)))
            if not plan.outer_scopes:
                kept.append((keys, has_null))
            return keys, has_null

        def member(row: Row) -> Any:
            values = [compute(row) for compute in computes]
            keys, has_null = known(row)
            if None in values:
                return None if keys or has_null else 0
            key = tuple(read(v) if read else v for v, (read, _) in zip(values, pairs, strict=True))
            return 1 if key in keys else None if has_null else 0

        return self._term(member, INT, reads, outer, lefts)

    def quantified(self, sign: str, left: Node, node: nodes.Subquery) -> Term:
        """left sign ANY (query), or ALL."""
        term = self.bind_scalar(left)
        plan, rows_of, reads, outer = self._plan(node.query)
        if len(plan.columns) != 1:
            raise errors.operand_columns(1)
        self._refuse_limit(node.query)
        read_left, read_right = readers(term.type, plan.columns[0][1])
        test, compute, every = OPERATORS[sign], term.compute, node.role == "all"

        def quantify(row: Row) -> Any:
            value, unknown = compute(row), False
            for (found,) in rows_of(row):
                if value is None or found is None:
                    unknown = True
                    continue
                holds = test(
                    read_left(value) if read_left else value, read_right(found) if read_right else found
                )
                if holds != every:
                    return int(not every)
            return None if unknown else int(every)

        return self._term(quantify, INT, reads, outer, (term,))

    def row_subquery(self, sign: str, left: nodes.Row, node: nodes.Subquery) -> Term:
        """(a, b) = (query)."""
        lefts = [self.bind(item) for item in left.items]
        plan, rows_of, reads, outer = self._plan(node.query)
        if len(plan.columns) != len(lefts) or sign not in ("=", "<=>", "<>"):
            raise errors.operand_columns(len(lefts))
        slot: list[Any] = [None]

        def cell(place: int) -> Compute:
            return lambda row: slot[0][place]

        tests = [
            compare("<=>" if sign == "<=>" else "=", term, Term(cell(place), kind)).compute
            for place, (term, (_, kind)) in enumerate(zip(lefts, plan.columns, strict=True))
        ]

        def equal(row: Row) -> Any:
            rows = rows_of(row)
            if len(rows) > 1:
                raise SqlError(SEVERAL)
            if not rows:
                return None
            slot[0] = rows[0]
            results = [test(row) for test in tests]
            same = 0 if 0 in results else None if None in results else 1
            return same if sign != "<>" or same is None else 1 - same

        return self._term(equal, INT, reads, outer, lefts)
