"""MySQL's grammar of function calls, and of everything that looks like one."""

from collections.abc import Callable

from coevo_jax.envs.intercode_sql.mysql import nodes
from coevo_jax.envs.intercode_sql.mysql.lexer import text_value
from coevo_jax.envs.intercode_sql.mysql.nodes import Call, Node
from coevo_jax.envs.intercode_sql.mysql.walker import Walker
from coevo_jax.envs.intercode_sql.mysql.words import (
    AGGREGATES,
    CALLABLE_RESERVED,
    RESERVED,
    TIGHT,
    WINDOWS,
    WITHOUT_BRACKETS,
)

CASTS = {
    **{word: word for word in ("signed", "unsigned", "char", "binary", "decimal", "double", "float", "real")},
    **{word: word for word in ("date", "time", "datetime", "year", "json", "nchar")},
    "dec": "decimal",
    "character": "char",
}


class CallParser(Walker):
    """Reads calls; expressions are left to the class that builds on it."""

    def expression(self) -> Node:
        """expr."""
        raise NotImplementedError

    def bit_expression(self, level: int = 0) -> Node:
        """bit_expr."""
        raise NotImplementedError

    def call(self) -> Node | None:
        """A function with brackets; None where the word before the bracket is no function's."""
        token, name = self.token, self.word
        tight = self._ignore_space or self.peek(1).start == token.end
        if name in RESERVED and name not in CALLABLE_RESERVED and name not in WINDOWS:
            return None
        if name in TIGHT and not tight:
            name = "?" + name
        self.advance()
        self.advance()
        rule = self._SPECIAL.get(name)
        if rule is not None:
            found = rule(self, token.text)
        elif name in AGGREGATES:
            found = self._aggregate(name, token.text)
        else:
            arguments = [] if self.word == ")" else self.list_of(self._argument)
            found = Call(name, arguments, token.text)
            self.expect(")")
        if isinstance(found, Call) and (name in AGGREGATES or name in WINDOWS):
            self._over(found, name)
        return found

    def _argument(self) -> Node:
        return self.interval() if self.word == "interval" and self.peek(1).word != "(" else self.expression()

    def interval(self) -> nodes.Interval:
        """INTERVAL count unit."""
        raise NotImplementedError

    def unit(self) -> str:
        """A unit of time."""
        raise NotImplementedError

    def bare_function(self) -> Node:
        """CURRENT_DATE and its like without brackets."""
        if self.word not in WITHOUT_BRACKETS:
            if self.word in CALLABLE_RESERVED or self.word in WINDOWS:
                self.advance()  # a function whose bracket is missing
            raise self.error()
        name, written = self.word, self.token.text
        self.advance()
        return Call(name, [], written)

    def _aggregate(self, name: str, written: str) -> Call:
        call = Call(name, [], written)
        if name == "count" and self.word == "*":
            self.advance()
            call.star = True
        else:
            call.distinct = self.take("distinct")
            if not call.distinct:
                self.take("all")
            if name in ("group_concat", "json_objectagg") or (name == "count" and call.distinct):
                call.arguments = self.list_of(self.expression)
            else:
                call.arguments = [self.expression()]
        if name == "group_concat":
            if self.take("order"):
                self.expect("by")
                call.order = self.keys()
            if self.take("separator"):
                if self.token.kind != "text":
                    raise self.error()
                call.separator = text_value(self.token.text)
                self.advance()
        self.expect(")")
        return call

    def keys(self) -> list[nodes.Key]:
        """Terms of ORDER BY."""
        return self.list_of(self._key)

    def _key(self) -> nodes.Key:
        term = self.expression()
        descending = self.word == "desc"
        if self.word in ("asc", "desc"):
            self.advance()
        return nodes.Key(term, descending)

    def _over(self, call: Call, name: str) -> None:
        for words in (("from", "first"), ("respect", "nulls")):
            if name in WINDOWS and self.word == words[0] and self.peek(1).word == words[1]:
                self.advance()
                self.advance()
        if self.take("over"):
            call.window = self.window() if self.word == "(" else self.identifier()
        elif name in WINDOWS:
            raise self.error()

    def window(self) -> nodes.Window:
        """A window in brackets."""
        self.expect("(")
        base = self.identifier() if self.token.is_name and self.word not in ("rows", "range") else None
        partition: list[Node] = []
        if self.take("partition"):
            self.expect("by")
            partition = self.list_of(self.expression)
        order: list[nodes.Key] = []
        if self.take("order"):
            self.expect("by")
            order = self.keys()
        frame = None
        if self.word in ("rows", "range", "groups"):
            if self.word == "groups":
                raise self.unsupported("GROUPS")
            unit = self.word
            self.advance()
            if self.take("between"):
                start = self._bound()
                self.expect("and")
                frame = (unit, start, self._bound())
            else:
                frame = (unit, self._bound(), ("current", None))
        self.expect(")")
        return nodes.Window(partition, order, frame, base)

    def _bound(self) -> tuple[str, Node | None]:
        if self.take("current"):
            self.expect("row")
            return "current", None
        count = (
            None
            if self.take("unbounded")
            else (self.interval() if self.word == "interval" else self.expression())
        )
        if self.word not in ("preceding", "following"):
            raise self.error()
        direction = self.word
        self.advance()
        return (f"unbounded {direction}" if count is None else direction), count

    def _cast(self, written: str) -> Node:
        operand = self.expression()
        self.expect("as")
        kind, length, scale = self._type()
        self.expect(")")
        return nodes.Cast(operand, kind, length, scale)

    def _convert(self, written: str) -> Node:
        operand = self.expression()
        if self.take("using"):
            self.advance()
            self.expect(")")
            return nodes.Cast(operand, "char")
        self.expect(",")
        kind, length, scale = self._type()
        self.expect(")")
        return nodes.Cast(operand, kind, length, scale)

    def _type(self) -> tuple[str, int | None, int | None]:
        kind = CASTS.get(self.word)
        if kind is None:
            raise self.error()
        self.advance()
        length = scale = None
        if kind in ("signed", "unsigned") and self.word in ("int", "integer"):
            self.advance()
        elif kind in ("char", "binary", "nchar", "decimal", "time", "datetime", "float") and self.take("("):
            length = self._digits()
            if kind == "decimal" and self.take(","):
                scale = self._digits()
            self.expect(")")
        if kind in ("char", "nchar"):
            if self.word in ("character", "charset"):
                self.advance()
                self.take("set")
                self.advance()
            elif self.word in ("binary", "ascii", "unicode"):
                self.advance()
        if kind in ("decimal", "double", "float", "real", "nchar"):
            kind = {"real": "double", "nchar": "char"}.get(kind, kind)
        return kind, length, scale

    def _digits(self) -> int:
        if self.token.kind != "number" or not self.token.text.isdigit():
            raise self.error()
        value = int(self.token.text)
        self.advance()
        return value

    def _substring(self, written: str) -> Node:
        arguments = [self.expression()]
        if self.take("from"):
            arguments.append(self.expression())
            if self.take("for"):
                arguments.append(self.expression())
        else:
            while self.take(","):
                arguments.append(self.expression())
            if not 2 <= len(arguments) <= 3:
                raise self.error()
        self.expect(")")
        return Call("substring", arguments, written)

    def _trim(self, written: str) -> Node:
        position = self.word if self.word in ("both", "leading", "trailing") else ""
        if position:
            self.advance()
        remove: Node = nodes.Literal(" ", "text")
        if position and self.take("from"):
            text = self.expression()
        else:
            text = self.expression()
            if self.take("from"):
                remove, text = text, self.expression()
            elif position:
                raise self.error()
        self.expect(")")
        return Call("trim", [text, remove, nodes.Literal(position or "both", "text")], written)

    def _position(self, written: str) -> Node:
        part = self.bit_expression()
        self.expect("in")
        arguments = [part, self.expression()]
        self.expect(")")
        return Call("locate", arguments, written)

    def _extract(self, written: str) -> Node:
        unit = self.unit()
        self.expect("from")
        arguments = [nodes.Literal(unit, "text"), self.expression()]
        self.expect(")")
        return Call("extract", arguments, written)

    def _between_units(self, written: str) -> Node:
        unit = self.unit()
        self.expect(",")
        arguments = [nodes.Literal(unit, "text"), self.expression()]
        self.expect(",")
        arguments.append(self.expression())
        self.expect(")")
        return Call(written.lower(), arguments, written)

    def _shift(self, written: str) -> Node:
        value = self.expression()
        self.expect(",")
        if self.word == "interval":
            amount: Node = self.interval()
        elif written.lower() in ("adddate", "subdate"):
            amount = nodes.Interval(self.expression(), "day")
        else:
            raise self.error()
        self.expect(")")
        return nodes.Operation("-" if "sub" in written.lower() else "+", [Call("as moment", [value]), amount])

    def _char(self, written: str) -> Node:
        arguments = self.list_of(self.expression)
        using = self.take("using")
        if using:
            self.advance()
        self.expect(")")
        return Call("char" if using else "char bytes", arguments, written)

    def _fixed(self, least: int, most: int) -> Callable[[str], Node]:
        def fixed(written: str) -> Node:
            arguments: list[Node] = []
            while len(arguments) < most and not (len(arguments) >= least and self.word == ")"):
                if arguments:
                    self.expect(",")
                arguments.append(self.expression())
            self.expect(")")
            return Call(written.lower(), arguments, written)

        return fixed

    def _match(self, written: str) -> Node:
        raise self.unsupported("MATCH")

    def _row(self, written: str) -> Node:
        items = self.list_of(self.expression)
        self.expect(")")
        return nodes.Row(items)

    _SPECIAL = {  # noqa: RUF012
        "cast": _cast,
        "convert": _convert,
        **dict.fromkeys(("substring", "substr", "mid"), _substring),
        "trim": _trim,
        "position": _position,
        "extract": _extract,
        **dict.fromkeys(("timestampdiff", "timestampadd"), _between_units),
        **dict.fromkeys(("date_add", "date_sub", "adddate", "subdate"), _shift),
        "char": _char,
        "match": _match,
        "row": _row,
        **{
            name: (lambda self, written, least=least, most=most: self._fixed(least, most)(written))
            for names, least, most in (
                ("left right repeat mod", 2, 2),
                ("if replace", 3, 3),
                ("insert", 4, 4),
                ("year month day hour minute second microsecond date time quarter ascii reverse", 1, 1),
                ("week truncate", 1, 2),
                ("database schema user current_user curdate current_date utc_date", 0, 0),
                ("now sysdate curtime current_time current_timestamp localtime localtimestamp", 0, 1),
                ("utc_time utc_timestamp", 0, 1),
            )
            for name in names.split()
        },
    }
