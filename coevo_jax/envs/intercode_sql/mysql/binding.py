"""Binds the expressions of a query to its columns: names, types and what computes them."""

from collections.abc import Callable
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.arithmetic import bitwise, invert, negate, operate
from coevo_jax.envs.intercode_sql.mysql.binding_calls import CallBinder
from coevo_jax.envs.intercode_sql.mysql.comparisons import compare, membership
from coevo_jax.envs.intercode_sql.mysql.forms import cast, choose, shift, text_compute
from coevo_jax.envs.intercode_sql.mysql.literals import literal_term
from coevo_jax.envs.intercode_sql.mysql.nodes import Node, Operation
from coevo_jax.envs.intercode_sql.mysql.patterns import like, matches
from coevo_jax.envs.intercode_sql.mysql.schema import (
    BYTES,
    INT,
    TEXT,
)
from coevo_jax.envs.intercode_sql.mysql.subqueries import SubqueryBinder
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Row, Scope, Term, combine, constant, fold
from coevo_jax.envs.intercode_sql.mysql.values import truth
from coevo_jax.envs.intercode_sql.mysql.work_limit import Budget
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

COMPARISONS = frozenset({"=", "<=>", "<>", "<", "<=", ">", ">="})
ARITHMETIC = frozenset({"+", "-", "*", "/", "%", "div"})
ALIASED = frozenset({"order clause", "having clause", "group statement"})
BITWISE = frozenset({"|", "&", "^", "<<", ">>"})


class Binder(CallBinder, SubqueryBinder):
    """Binds the expressions of one query; `scope` says what its names mean."""

    def __init__(self, scope: Scope, build: Callable[..., Any], budget: Budget, database: str):
        self.scope, self.build, self.budget, self.database = scope, build, budget, database
        self.outer_scopes: set[int] = set()
        self.having: Callable[[Binder, tuple[str, ...]], Term | None] | None = None

    def bind(self, node: Node) -> Term:
        """The term of an expression.

        Raises:
          SqlError: MySQL refuses the expression; in its words.
        """
        term = self._RULES[type(node)](self, node)
        return fold(term) if term.constant else term

    def bind_scalar(self, node: Node) -> Term:
        """The term of an expression that must be one value."""
        if isinstance(node, nodes.Row):
            raise errors.operand_columns(1)
        return self.bind(node)

    def _literal(self, node: nodes.Literal) -> Term:
        return literal_term(node)

    def _name(self, node: nodes.Name) -> Term:
        return self.column(node.parts)

    def column(self, parts: tuple[str, ...]) -> Term:
        """The term of a column, of this query or of one around it."""
        scope: Scope | None = self.scope
        depth = 0
        if self.having is not None and not self.scope.inside_aggregate:
            if (term := self.having(self, parts)) is not None:
                return term
            scope, depth = self.scope.outer, 1
        while scope is not None:
            found = scope.find(parts)
            if len(found) > 1:
                raise SqlError(f"Column '{'.'.join(parts)}' in {self.scope.place} is ambiguous")
            for place in found:
                return _column_term(scope, place) if depth == 0 else self._outer_column(scope, place)
            if (term := self._alias_of(scope, parts, depth)) is not None:
                return term
            scope = scope.outer
            depth += 1
        raise errors.unknown_column(".".join(parts), self.scope.place)

    def outer_aggregate(self, node: nodes.Call, outer: Scope) -> Term:
        """An aggregate of the query around this one, which only columns of that query stand in."""
        inner = Binder(outer, self.build, self.budget, self.database)
        term, frame = inner.bind(node), outer.frame
        self.outer_scopes |= {id(outer), *inner.outer_scopes}
        return Term(lambda row: term.compute(frame[0]), term.type, ("outer", id(outer), term.key), outer=True)

    def equal_columns(self, left: tuple[int, int], right: tuple[int, int]) -> Term:
        """The condition that USING stands for."""
        return compare("=", _column_term(self.scope, left), _column_term(self.scope, right))

    def column_at(self, place: tuple[int, int]) -> Term:
        """The term of a column at a place, for `*`."""
        return _column_term(self.scope, place)

    def _alias_of(self, scope: Scope, parts: tuple[str, ...], depth: int) -> Term | None:
        """An alias of the select list, where the query's clause may name one."""
        if (
            depth
            or len(parts) != 1
            or scope.place not in ("order clause", "having clause", "group statement")
        ):
            return None
        for name, term in scope.items:
            if name.lower() == parts[0].lower():
                return term
        return None

    def _outer_column(self, scope: Scope, place: tuple[int, int]) -> Term:
        inner = _column_term(scope, place)
        scope.reads.append(inner)
        frame = scope.frame
        source, column = place
        term = Term(
            lambda row: frame[0][source][column],
            inner.type,
            ("outer", id(scope), source, column),
            outer=True,
            label=inner.label,
        )
        self.outer_scopes.add(id(scope))
        return term

    def _operation(self, node: Operation) -> Term:
        sign = node.sign
        rule = self._OPERATIONS.get(sign)
        if rule is not None:
            return rule(self, node)
        if isinstance(node.operands[-1], nodes.Interval):
            return self._moved(node)
        if sign in COMPARISONS:
            return self._comparison(node)
        left, right = (self.bind_scalar(operand) for operand in node.operands)
        if sign in ARITHMETIC:
            return operate(sign, left, right)
        return bitwise(sign, left, right)

    def _comparison(self, node: Operation) -> Term:
        left, right = node.operands
        if isinstance(right, nodes.Subquery) and right.role in ("any", "all"):
            return self.quantified(node.sign, left, right)
        if isinstance(left, nodes.Row) or isinstance(right, nodes.Row):
            return self._row_comparison(node.sign, left, right)
        return compare(node.sign, self.bind(left), self.bind(right))

    def _row_comparison(self, sign: str, left: Node, right: Node) -> Term:
        if isinstance(left, nodes.Row) and isinstance(right, nodes.Subquery):
            return self.row_subquery(sign, left, right)
        if isinstance(right, nodes.Row) and isinstance(left, nodes.Subquery):
            return self.row_subquery(sign, right, left)
        width = max(len(side.items) if isinstance(side, nodes.Row) else 1 for side in (left, right))
        if not (
            isinstance(left, nodes.Row)
            and isinstance(right, nodes.Row)
            and len(left.items) == len(right.items)
        ):
            raise errors.operand_columns(len(left.items) if isinstance(left, nodes.Row) else 1)
        if sign not in ("=", "<=>", "<>"):
            raise errors.operand_columns(1) if width < 1 else errors.not_supported("comparison of rows")
        tests = [
            Operation("<=>" if sign == "<=>" else "=", [a, b])
            for a, b in zip(left.items, right.items, strict=True)
        ]
        whole: Node = tests[0]
        for test in tests[1:]:
            whole = Operation("and", [whole, test])
        return self.bind(Operation("not", [whole]) if sign == "<>" else whole)

    def _moved(self, node: Operation) -> Term:
        value, interval = node.operands
        if not isinstance(interval, nodes.Interval) or node.sign not in "+-":
            raise errors.syntax_error("INTERVAL")
        if isinstance(value, nodes.Call) and value.name == "as moment":
            value = value.arguments[0]
        shifted = self.bind_scalar(value)
        return shift(shifted, self.bind_scalar(interval.count), interval.unit, 1 if node.sign == "+" else -1)

    def _and(self, node: Operation) -> Term:
        left, right = (self.bind_scalar(operand) for operand in node.operands)
        first, second = left.compute, right.compute

        def both(row: Row) -> Any:
            a = truth(first(row))
            if a is False:
                return 0
            b = truth(second(row))
            return 0 if b is False else None if a is None or b is None else 1

        return combine(both, INT, "and", (left, right))

    def _or(self, node: Operation) -> Term:
        left, right = (self.bind_scalar(operand) for operand in node.operands)
        first, second = left.compute, right.compute

        def either(row: Row) -> Any:
            a = truth(first(row))
            if a:
                return 1
            b = truth(second(row))
            return 1 if b else None if a is None or b is None else 0

        return combine(either, INT, "or", (left, right))

    def _xor(self, node: Operation) -> Term:
        left, right = (self.bind_scalar(operand) for operand in node.operands)
        first, second = left.compute, right.compute

        def exclusive(row: Row) -> Any:
            a, b = truth(first(row)), truth(second(row))
            return None if a is None or b is None else int(a != b)

        return combine(exclusive, INT, "xor", (left, right))

    def _not(self, node: Operation) -> Term:
        term = self.bind_scalar(node.operands[0])
        compute = term.compute

        def negation(row: Row) -> Any:
            value = truth(compute(row))
            return None if value is None else int(not value)

        return combine(negation, INT, "not", (term,))

    def _is(self, node: Operation) -> Term:
        term = self.bind_scalar(node.operands[0])
        compute = term.compute
        tests: dict[str, Compute] = {
            "is null": lambda row: int(compute(row) is None),
            "is not null": lambda row: int(compute(row) is not None),
            "is unknown": lambda row: int(compute(row) is None),
            "is true": lambda row: int(bool(truth(compute(row)))),
            "is false": lambda row: int(truth(compute(row)) is False),
        }
        return combine(tests[node.sign], INT, node.sign, (term,))

    def _between(self, node: Operation) -> Term:
        value, low, high = (self.bind_scalar(operand) for operand in node.operands)
        above, below = compare(">=", value, low).compute, compare("<=", value, high).compute

        def within(row: Row) -> Any:
            a, b = above(row), below(row)
            return 0 if a == 0 or b == 0 else None if a is None or b is None else 1

        return combine(within, INT, "between", (value, low, high))

    def _like(self, node: Operation) -> Term:
        terms = [self.bind_scalar(operand) for operand in node.operands]
        escape = str(terms[2].value or "") if len(terms) > 2 else "\\"
        text, pattern = text_compute(terms[0]), text_compute(terms[1])

        def liked(row: Row) -> Any:
            a, b = text(row), pattern(row)
            return None if a is None or b is None else like(a, b, escape)

        return combine(liked, INT, "like", terms)

    def _regexp(self, node: Operation) -> Term:
        terms = [self.bind_scalar(operand) for operand in node.operands]
        text, pattern = (text_compute(term) for term in terms)
        budget = self.budget

        def matched(row: Row) -> Any:
            a, b = text(row), pattern(row)
            return None if a is None or b is None else matches(a, b, budget.deadline)

        return combine(matched, INT, "regexp", terms)

    def _in(self, node: Operation) -> Term:
        left, *items = node.operands
        if isinstance(items[0], nodes.Subquery) and items[0].role == "in":
            return self.in_subquery(left, items[0])
        if not isinstance(left, nodes.Row):
            return membership(self.bind_scalar(left), [self.bind_scalar(item) for item in items])
        whole: Node | None = None
        for item in items:
            test = Operation("=", [left, item])
            whole = test if whole is None else Operation("or", [whole, test])
        return self.bind(whole or nodes.Literal(0, "int"))

    def _negative(self, node: Operation) -> Term:
        operand = node.operands[0]
        term = negate(self.bind_scalar(operand))
        if isinstance(operand, nodes.Literal) and operand.kind in ("int", "decimal", "double"):
            literal = nodes.Literal(-operand.value, operand.kind, operand.scale)
            return constant(-operand.value, term.type, literal)
        return term

    def _invert(self, node: Operation) -> Term:
        return invert(self.bind_scalar(node.operands[0]))

    def _collate(self, node: Operation) -> Term:
        term, name = self.bind_scalar(node.operands[0]), str(node.operands[1].value)  # pyright: ignore[reportAttributeAccessIssue]
        lowered = name.lower()
        if lowered == "binary" or lowered.endswith("_bin"):
            return combine(_encoded(text_compute(term)), BYTES, "collate", (term,))
        if not lowered.startswith(("utf8", "latin1_", "ascii_")):
            raise SqlError(f"Unknown collation: '{name}'")
        return combine(text_compute(term), TEXT, "collate", (term,))

    def _case(self, node: nodes.Case) -> Term:
        conditions = [
            condition if node.operand is None else Operation("=", [node.operand, condition])
            for condition, _ in node.branches
        ]
        tests = [self.bind_scalar(condition) for condition in conditions]
        results = [self.bind_scalar(result) for _, result in node.branches]
        if node.otherwise is not None:
            results.append(self.bind_scalar(node.otherwise))

        def pick(computes: list[Compute]) -> Compute:
            pairs = list(zip([test.compute for test in tests], computes, strict=False))
            otherwise = computes[-1] if node.otherwise is not None else (lambda row: None)

            def first_true(row: Row) -> Any:
                for test, compute in pairs:
                    if truth(test(row)):
                        return compute(row)
                return otherwise(row)

            return first_true

        return choose(results, pick, "case", tests)

    def _cast(self, node: nodes.Cast) -> Term:
        return cast(self.bind_scalar(node.operand), node.kind, node.length, node.scale)

    def _variable(self, node: nodes.Variable) -> Term:
        return self.variable(node)

    def _star(self, node: nodes.Star) -> Term:
        raise errors.syntax_error("*")

    def _row(self, node: nodes.Row) -> Term:
        raise errors.operand_columns(1)

    _OPERATIONS: dict[str, Callable[["Binder", Operation], Term]] = {  # noqa: RUF012
        "and": _and,
        "or": _or,
        "xor": _xor,
        "not": _not,
        **dict.fromkeys(("is null", "is not null", "is unknown", "is true", "is false"), _is),
        "between": _between,
        "like": _like,
        "regexp": _regexp,
        "in": _in,
        "neg": _negative,
        "~": _invert,
        "collate": _collate,
    }
    _RULES: dict[type[Node], Callable[["Binder", Any], Term]] = {  # noqa: RUF012
        nodes.Literal: _literal,
        nodes.Name: _name,
        nodes.Operation: _operation,
        nodes.Call: lambda self, node: self.call(node),
        nodes.Case: _case,
        nodes.Cast: _cast,
        nodes.Subquery: lambda self, node: self.subquery(node),
        nodes.Variable: _variable,
        nodes.Star: _star,
        nodes.Row: _row,
        nodes.Interval: _row,
    }


def _encoded(compute: Compute) -> Compute:
    def encoded(row: Row) -> Any:
        value = compute(row)
        return None if value is None else value.encode()

    return encoded


def _column_term(scope: Scope, place: tuple[int, int]) -> Term:
    number, column = place
    source = scope.sources[number]
    source.used.add(column)
    name, kind = source.columns[column]
    label = f"{source.database}.{source.alias}.{name}" if source.database else f"{source.alias}.{name}"
    return Term(
        lambda row: row[number][column],
        kind,
        ("column", id(scope), number, column),
        uses=1 << number,
        column=(number, column),
        label=label,
    )
