"""MySQL's grammar of expressions, by recursive descent; the first token that fits nowhere is the error."""

from decimal import Decimal
from typing import TYPE_CHECKING

from coevo_jax.envs.intercode_sql.mysql import nodes
from coevo_jax.envs.intercode_sql.mysql.calls import CallParser
from coevo_jax.envs.intercode_sql.mysql.lexer import hex_value, text_value
from coevo_jax.envs.intercode_sql.mysql.nodes import Node, Operation
from coevo_jax.envs.intercode_sql.mysql.words import UNITS

if TYPE_CHECKING:
    from coevo_jax.envs.intercode_sql.mysql.nodes import Query

COMPARISONS = frozenset({"=", "<=>", "<>", "!=", "<", "<=", ">", ">="})
LEVELS = (("|",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "%", "div", "mod"), ("^",))
"""Operators between bit expressions, the loosest first."""
QUERY_STARTS = frozenset({"select", "with", "values", "table"})


class ExpressionParser(CallParser):
    """Expressions; queries are left to the class that builds on it."""

    def subquery(self) -> "Query":
        """The query in brackets at the current token."""
        raise NotImplementedError

    def expression(self) -> Node:
        """expr: OR, XOR, AND and NOT over tests."""
        left = self._exclusive()
        while self.word in ("or", "||"):
            self.advance()
            left = Operation("or", [left, self._exclusive()])
        return left

    def _exclusive(self) -> Node:
        left = self._conjunction()
        while self.word == "xor":
            self.advance()
            left = Operation("xor", [left, self._conjunction()])
        return left

    def _conjunction(self) -> Node:
        left = self._negation()
        while self.word in ("and", "&&"):
            self.advance()
            left = Operation("and", [left, self._negation()])
        return left

    def _negation(self) -> Node:
        if self.take("not"):
            return Operation("not", [self._negation()])
        left = self._test()
        while self.word == "is":
            self.advance()
            negated = self.take("not")
            if self.word not in ("true", "false", "unknown"):
                raise self.error()
            test = Operation(f"is {self.word}", [left])
            self.advance()
            left = Operation("not", [test]) if negated else test
        return left

    def _test(self) -> Node:
        """bool_pri: IS NULL and comparisons."""
        left = self._predicate()
        while True:
            if self.word == "is" and self._null_follows():
                self.advance()
                negated = self.take("not")
                self.advance()
                left = Operation("is not null" if negated else "is null", [left])
            elif self.word in COMPARISONS:
                sign = {"!=": "<>"}.get(self.word, self.word)
                self.advance()
                if self.word in ("all", "any", "some") and self.peek(1).word == "(":
                    role = "all" if self.word == "all" else "any"
                    self.advance()
                    if self.peek(1).word not in QUERY_STARTS and self.peek(1).word != "(":
                        self.advance()
                        raise self.error()
                    right: Node = nodes.Subquery(self.subquery(), role)
                else:
                    right = self._predicate()
                left = Operation(sign, [left, right])
            else:
                return left

    def _null_follows(self) -> bool:
        following = self.peek(1).word
        return following == "null" or (following == "not" and self.peek(2).word == "null")

    def _predicate(self) -> Node:
        left = self.bit_expression()
        negated = self.word == "not"
        if negated:
            if self.peek(1).word not in ("in", "between", "like", "regexp", "rlike"):
                self.advance()
                raise self.error()
            self.advance()
        found = self._predicate_tail(left)
        if found is None:
            return left
        return Operation("not", [found]) if negated else found

    def _predicate_tail(self, left: Node) -> Node | None:
        if self.take("in"):
            return self._membership(left)
        if self.take("between"):
            low = self.bit_expression()
            self.expect("and")
            return Operation("between", [left, low, self._predicate()])
        if self.take("like"):
            operands = [left, self.simple()]
            if self.take("escape"):
                operands.append(self.simple())
            return Operation("like", operands)
        if self.word in ("regexp", "rlike"):
            self.advance()
            return Operation("regexp", [left, self.bit_expression()])
        if self.word == "sounds" and self.peek(1).word == "like":
            self.advance()
            self.advance()
            sound = [nodes.Call("soundex", [side]) for side in (left, self.bit_expression())]
            return Operation("=", [*sound])
        if self.word == "member" and self.peek(1).word == "of":
            raise self.unsupported("MEMBER OF")
        return None

    def _membership(self, left: Node) -> Node:
        if self.word != "(":
            raise self.error()
        if self.opens_query():
            return Operation("in", [left, nodes.Subquery(self.subquery(), "in")])
        self.advance()
        items = self.list_of(self.expression)
        self.expect(")")
        return Operation("=", [left, items[0]]) if len(items) == 1 else Operation("in", [left, *items])

    def bit_expression(self, level: int = 0) -> Node:
        """bit_expr: arithmetic, from the loosest operators on."""
        if level == len(LEVELS):
            return self.simple()
        left = self.bit_expression(level + 1)
        while self.word in LEVELS[level] and self.token.kind in ("sign", "name"):
            sign = {"mod": "%"}.get(self.word, self.word)
            self.advance()
            if self.word == "interval" and sign in "+-" and not self._interval_function():
                left = Operation(sign, [left, self.interval()])
            else:
                left = Operation(sign, [left, self.bit_expression(level + 1)])
        return left

    def _interval_function(self) -> bool:
        """Whether INTERVAL is the function of that name: a comma stands in its brackets."""
        if self.peek(1).word != "(":
            return False
        depth, ahead = 0, 1
        while (token := self.peek(ahead)).kind != "end":
            depth += {"(": 1, ")": -1}.get(token.word, 0)
            if depth == 1 and token.word == ",":
                return True
            if depth == 0:
                return False
            ahead += 1
        return False

    def interval(self) -> nodes.Interval:
        """INTERVAL count unit."""
        self.expect("interval")
        count = self.expression()
        return nodes.Interval(count, self.unit())

    def unit(self) -> str:
        """A unit of time."""
        unit = self.word.removeprefix("sql_tsi_")
        if unit not in UNITS:
            raise self.error()
        self.advance()
        return unit

    def simple(self) -> Node:
        """simple_expr, and COLLATE behind it."""
        found = self._simple()
        while self.take("collate"):
            if self.token.kind not in ("name", "text", "quoted") or (
                self.token.kind == "name" and not self.token.is_name and self.word != "binary"
            ):
                raise self.error()
            name = self.token.text.strip("'\"")
            self.advance()
            found = Operation("collate", [found, nodes.Literal(name, "text")])
        return found

    def _simple(self) -> Node:
        token = self.token
        if token.kind in ("number", "text", "hex"):
            return self._constant()
        if token.kind in ("system", "user") and len(token.text) > 1:
            self.advance()
            return nodes.Variable(token.text.lstrip("@").strip("`'\""), token.kind == "system")
        if token.word in ("-", "+", "~", "!"):
            self.advance()
            operand = self.simple()
            return (
                operand
                if token.word == "+"
                else Operation({"-": "neg", "!": "not"}.get(token.word, "~"), [operand])
            )
        if token.word == "(":
            return self._bracket()
        if token.word == "{":
            return self._escape()
        rule = self._SIMPLE.get(token.word) if token.kind == "name" else None
        if rule is not None and (found := rule(self)) is not None:
            return found
        if token.kind == "name" and self.peek(1).word == "(" and (call := self.call()) is not None:
            return call
        if token.is_name:
            return self.name()
        return self.bare_function()

    def _constant(self) -> Node:
        token = self.token
        self.advance()
        if token.kind == "hex":
            return nodes.Literal(hex_value(token.text), "bytes")
        if token.kind == "number":
            return number(token.text)
        value = text_value(token.text)
        while self.token.kind == "text":
            value += text_value(self.token.text)
            self.advance()
        return nodes.Literal(value, "text")

    def _bracket(self) -> Node:
        if self.opens_query():
            return nodes.Subquery(self.subquery())
        self.advance()
        items = self.list_of(self.expression)
        self.expect(")")
        return items[0] if len(items) == 1 else nodes.Row(items)

    def _escape(self) -> Node:
        """{d '2020-01-01'}, as ODBC writes it."""
        self.advance()
        kind = {"d": "date", "t": "time", "ts": "datetime"}.get(self.word)
        if kind is None:
            raise self.error()
        self.advance()
        if self.token.kind != "text":
            raise self.error()
        value = text_value(self.token.text)
        self.advance()
        self.expect("}")
        return nodes.Literal(value, kind)

    def opens_query(self) -> bool:
        """Whether the bracket at the current token holds a query."""
        ahead = 1
        while self.peek(ahead).word == "(":
            ahead += 1
        if self.peek(ahead).word not in QUERY_STARTS or self.peek(ahead).kind != "name":
            return False
        if self.peek(ahead).word == "values" and self.peek(ahead + 1).word == "(":
            return False
        return ahead == 1 or self._whole_query()

    def _whole_query(self) -> bool:
        """Whether all of a bracket in brackets is one query, and no term such as ((SELECT 1) + 1)."""
        place = self.place
        try:
            self.subquery()
            return True
        except Exception:
            return False
        finally:
            self.place = place

    def _null(self) -> Node:
        self.advance()
        return nodes.Literal(None, "null")

    def _truth(self) -> Node:
        value = int(self.word == "true")
        self.advance()
        return nodes.Literal(value, "int")

    def _case(self) -> Node:
        self.advance()
        operand = None if self.word == "when" else self.expression()
        if self.word != "when":
            raise self.error()
        branches = []
        while self.take("when"):
            condition = self.expression()
            self.expect("then")
            branches.append((condition, self.expression()))
        otherwise = self.expression() if self.take("else") else None
        self.expect("end")
        return nodes.Case(operand, branches, otherwise)

    def _exists(self) -> Node:
        self.advance()
        if self.word != "(" or not self.opens_query():
            if self.word == "(":
                self.advance()
            raise self.error()
        return nodes.Subquery(self.subquery(), "exists")

    def _binary(self) -> Node:
        self.advance()
        return nodes.Cast(self.simple(), "binary")

    def _leading_interval(self) -> Node | None:
        if self._interval_function():
            return None
        interval = self.interval()
        self.expect("+")
        return Operation("+", [self.expression(), interval])

    def _moment(self) -> Node | None:
        """DATE '2020-01-01', and the like."""
        if self.peek(1).kind != "text":
            return None
        kind = {"timestamp": "datetime"}.get(self.word, self.word)
        self.advance()
        value = text_value(self.token.text)
        self.advance()
        return nodes.Literal(value, kind)

    _SIMPLE = {  # noqa: RUF012
        "null": _null,
        "true": _truth,
        "false": _truth,
        "case": _case,
        "exists": _exists,
        "binary": _binary,
        "interval": _leading_interval,
        "date": _moment,
        "time": _moment,
        "timestamp": _moment,
    }


def number(text: str) -> nodes.Literal:
    """The constant of a number as written."""
    if "e" in text.lower():
        return nodes.Literal(float(text), "double")
    if "." in text:
        return nodes.Literal(Decimal(text.removesuffix(".")), "decimal", len(text.partition(".")[2]))
    value = int(text)
    return nodes.Literal(value, "int") if value < 2**64 else nodes.Literal(Decimal(value), "decimal")
