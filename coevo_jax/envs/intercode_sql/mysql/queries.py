"""MySQL's grammar of queries: SELECT, set operations, joins and WITH."""

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.expressions import ExpressionParser, number
from coevo_jax.envs.intercode_sql.mysql.nodes import Node, Query
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

OPTIONS = frozenset(
    [
        "all",
        "distinct",
        "distinctrow",
        "straight_join",
        "high_priority",
        "sql_small_result",
        "sql_big_result",
        "sql_buffer_result",
        "sql_calc_found_rows",
        "sql_no_cache",
    ]
)
JOINS = frozenset({"join", "inner", "cross", "straight_join", "left", "right", "natural"})
KEYWORD_TABLES = frozenset(
    {"show", "read", "keys", "use", "option", "condition", "range", "describe", "lock"}
)
"""Words that Spider's golds take for a table's name without backticks."""


class QueryParser(ExpressionParser):
    """Parses one query. `lenient`: derived tables may lack an alias, and KEYWORD_TABLES are names."""

    def __init__(self, sql: str, ignore_space: bool = False, lenient: bool = False):
        super().__init__(sql, ignore_space)
        self._lenient = lenient
        self.added: list[tuple[int, str]] = []  # what a lenient parser missed: place and text

    def statement(self) -> Query:
        """The whole text as one query; semicolons may stand behind it."""
        query = self.query()
        while self.take(";"):
            pass
        if self.token.kind != "end":
            raise self.error()
        return query

    def subquery(self) -> Query:
        """A query in brackets, which may stand in brackets themselves."""
        self.expect("(")
        query = self.query()
        self.expect(")")
        return query

    def query(self) -> Query:
        """query_expression: [WITH] body [ORDER BY] [LIMIT] [INTO] [FOR UPDATE]."""
        tables, recursive = self._with() if self.word == "with" else ([], False)
        found = self._body()
        if not isinstance(found, Query) or tables or self._more_follows():
            found = Query(found)
        found.tables, found.recursive = tables or found.tables, recursive or found.recursive
        self._order_and_limit(found)
        self._into(found)
        return found

    def _more_follows(self) -> bool:
        return self.word in ("order", "limit", "into", "for", "lock")

    def _order_and_limit(self, query: Query) -> None:
        if self.take("order"):
            self.expect("by")
            query.order = self.keys()
        if self.take("limit"):
            first = self._limit()
            if self.take(","):
                query.offset, query.limit = first, self._limit()
            else:
                query.limit = first
                if self.take("offset"):
                    query.offset = self._limit()

    def _limit(self) -> Node:
        token = self.token
        if token.kind == "number" and token.text.isdigit():
            self.advance()
            return number(token.text)
        if token.is_name:
            self.advance()
            raise SqlError(f"Undeclared variable: {token.text}")
        raise self.error()

    def _into(self, query: Query) -> None:
        select = query.body
        while self.word in ("into", "for", "lock"):
            if self.word == "into":
                self.advance()
                if self.word in ("outfile", "dumpfile"):
                    raise SqlError(errors.NO_FILE)
                self.list_of(self._variable)
                if isinstance(select, nodes.Select):
                    select.into = True
            elif self.word == "for":
                self.advance()
                if self.word not in ("update", "share"):
                    raise self.error()
                self.advance()
                if isinstance(select, nodes.Select):
                    select.locking = True
            else:
                for word in ("lock", "in", "share", "mode"):
                    self.expect(word)
                if isinstance(select, nodes.Select):
                    select.locking = True

    def _variable(self) -> None:
        if self.token.kind != "user":
            name = self.identifier()
            raise SqlError(f"Undeclared variable: {name}")
        self.advance()

    def _with(self) -> tuple[list[nodes.CommonTable], bool]:
        self.advance()
        recursive = self.take("recursive")
        return self.list_of(self._common_table), recursive

    def _common_table(self) -> nodes.CommonTable:
        name = self.identifier()
        columns = self._columns()
        self.expect("as")
        return nodes.CommonTable(name, columns, self.subquery())

    def _columns(self) -> tuple[str, ...]:
        if not self.take("("):
            return ()
        names = self.list_of(self.identifier)
        self.expect(")")
        return tuple(names)

    def _body(self) -> "nodes.Select | nodes.Values | nodes.SetOperation | Query":
        left = self._intersection()
        while self.word in ("union", "except"):
            kind = self.word
            self.advance()
            distinct = self._distinct()
            left = nodes.SetOperation(kind, distinct, _as_query(left), _as_query(self._intersection()))
        return left

    def _intersection(self) -> "nodes.Select | nodes.Values | nodes.SetOperation | Query":
        left = self._primary()
        while self.word == "intersect":
            self.advance()
            distinct = self._distinct()
            left = nodes.SetOperation("intersect", distinct, _as_query(left), _as_query(self._primary()))
        return left

    def _distinct(self) -> bool:
        if self.take("all"):
            return False
        self.take("distinct")
        return True

    def _primary(self) -> "nodes.Select | nodes.Values | Query":
        if self.word == "(":
            return self.subquery()
        if self.word == "values":
            self.advance()
            return nodes.Values(self.list_of(self._values_row))
        if self.word == "table":
            self.advance()
            return nodes.Select([nodes.Item(nodes.Star(), None, "*")], source=self._named_table(False))
        if self.word != "select":
            raise self.error()
        return self._select()

    def _values_row(self) -> list[Node]:
        self.expect("row")
        self.expect("(")
        row = self.list_of(self.expression)
        self.expect(")")
        return row

    def _select(self) -> nodes.Select:
        self.advance()
        distinct = False
        while self.word in OPTIONS:
            distinct = distinct or self.word.startswith("distinct")
            self.advance()
        select = nodes.Select(self._items(), distinct)
        if self.word == "into":
            holder = Query(select)
            self._into(holder)
        if self.take("from"):
            if self.word == "dual":
                self.advance()
            else:
                select.source = self._references()
        if self.take("where"):
            select.where = self.expression()
        if self.take("group"):
            self.expect("by")
            select.group = [nodes.Key(term) for term in self.list_of(self.expression)]
            if self.word == "with" and self.peek(1).word == "rollup":
                self.advance()
                self.advance()
                select.rollup = True
        if self.take("having"):
            select.having = self.expression()
        if self.take("window"):
            select.windows = dict(self.list_of(self._named_window))
        return select

    def _named_window(self) -> tuple[str, nodes.Window]:
        name = self.identifier().lower()
        self.expect("as")
        return name, self.window()

    def _items(self) -> list[nodes.Item]:
        if self.word == "*":
            self.advance()
            items = [nodes.Item(nodes.Star(), None, "*")]
            while self.take(","):
                items.append(self._item())
            return items
        return self.list_of(self._item)

    def _item(self) -> nodes.Item:
        start = self.token.start
        if (star := self._table_star()) is not None:
            return nodes.Item(star, None, "*")
        term = self.expression()
        text = self.sql[start : self.tokens[self.place - 1].end]
        alias = None
        if self.take("as"):
            if self.token.kind == "text":
                alias = self.token.text[1:-1]
                self.advance()
            else:
                alias = self.identifier()
        elif self.token.is_name or self.token.kind == "text":
            alias = self.token.text if self.token.kind != "text" else self.token.text[1:-1]
            self.advance()
        return nodes.Item(term, alias, text)

    def _table_star(self) -> nodes.Star | None:
        if not self.token.is_name or self.peek(1).word != ".":
            return None
        if self.peek(2).word == "*":
            parts = (self.token.text,)
        elif self.peek(3).word == "." and self.peek(4).word == "*":
            parts = (self.token.text, self.peek(2).text)
        else:
            return None
        for _ in range(2 * len(parts) + 1):
            self.advance()
        return nodes.Star(parts)

    def _references(self) -> Node:
        left = self._reference()
        while self.take(","):
            left = nodes.Join("inner", left, self._reference())
        return left

    def _reference(self) -> Node:
        left = self._factor()
        while self.word in JOINS:
            left = self._join(left)
        return left

    def _join(self, left: Node) -> Node:
        natural = self.take("natural")
        kind = self.word
        if kind in ("left", "right"):
            self.advance()
            self.take("outer")
            self.expect("join")
        elif kind == "straight_join":
            self.advance()
        else:
            kind = "inner"
            if self.word in ("inner", "cross"):
                self.advance()
            self.expect("join")
        right = self._factor()
        if natural:
            return nodes.Join(kind, left, right, natural=True)
        while self.word in JOINS and self.word != "natural" and (kind in ("left", "right") or self._nested()):
            right = self._join(right)
        join = nodes.Join(kind, left, right)
        if self.take("on"):
            join.on = self.expression()
        elif self.word == "using" and kind != "straight_join":
            self.advance()
            if self.word != "(":
                raise self.error()
            join.using = self._columns()
        elif kind in ("left", "right"):
            raise self.error()
        return join

    def _nested(self) -> bool:
        """Whether the join that follows ends before a second ON, as in a JOIN b JOIN c ON ... ON ..."""
        depth, ons, joins, ahead = 0, 0, 0, 0
        while (token := self.peek(ahead)).kind != "end" and depth >= 0:
            depth += {"(": 1, ")": -1}.get(token.word, 0)
            if depth == 0 and token.word in ("where", "group", "order", "limit", "having", ",", ";", "union"):
                break
            joins += depth == 0 and token.word in ("join", "straight_join")
            ons += depth == 0 and token.word in ("on", "using")
            ahead += 1
        return ons > joins

    def _factor(self) -> Node:
        lateral = self.take("lateral")
        if self.word == "(":
            if self.opens_query():
                query = self.subquery()
                return self._derived(query, lateral)
            self.advance()
            inner = self._references()
            self.expect(")")
            return inner
        return self._named_table(True)

    def _derived(self, query: Query, lateral: bool) -> Node:
        end = self.tokens[self.place - 1].end
        alias = self._alias()
        if alias is None:
            if not self._lenient:
                raise SqlError("Every derived table must have its own alias")
            alias = f"derived_{len(self.added) + 1}"
            self.added.append((end, f" AS {alias}"))
        return nodes.Derived(query, alias, self._columns(), lateral)

    def _alias(self) -> str | None:
        if self.take("as"):
            return self.identifier()
        return self.identifier() if self.token.is_name else None

    def _named_table(self, with_alias: bool) -> Node:
        token = self.token
        if self._lenient and token.kind == "name" and token.word in KEYWORD_TABLES:
            self.added += [(token.start, "`"), (token.end, "`")]
            self.advance()
            name = token.text
        else:
            name = self.identifier()
        database = None
        if self.take("."):
            if self.token.kind not in ("quoted", "name"):
                raise self.error()
            database, name = name, self.token.text
            self.advance()
        if self.word == "(":
            raise self.error()
        table = nodes.Table(database, name, name)
        if with_alias:
            table.alias = self._alias() or name
            while self.word in ("use", "force", "ignore"):
                table.hints.append(self._hint())
        return table

    def _hint(self) -> tuple[str, tuple[str, ...]]:
        kind = self.word
        self.advance()
        if self.word not in ("index", "key"):
            raise self.error()
        self.advance()
        if self.take("for"):
            self.advance()
            self.take("by")
        if self.word != "(":
            raise self.error()
        self.advance()
        names: list[str] = []
        while self.word != ")":
            names.append(self.token.text)
            self.advance()
            self.take(",")
        self.expect(")")
        return kind, tuple(names)


def _as_query(part: "nodes.Select | nodes.Values | nodes.SetOperation | Query") -> Query:
    return part if isinstance(part, Query) else Query(part)


def parse_query(sql: str, ignore_space: bool = False) -> Query:
    """The query of a text.

    Raises:
      SqlError: MySQL refuses the text; in its words, 1064 where its grammar ends.
    """
    try:
        return QueryParser(sql, ignore_space).statement()
    except RecursionError:
        raise SqlError("Thread stack overrun:  Need more than available stack") from None
