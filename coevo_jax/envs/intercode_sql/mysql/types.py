"""Which type MySQL gives an expression: SQLite keeps fewer, and the client prints every one differently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sqlglot import exp

from coevo_jax.envs.intercode_sql.mysql.dates import moment_of
from coevo_jax.envs.intercode_sql.mysql.functions import text_of
from coevo_jax.envs.intercode_sql.mysql.schema import (
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    NULL,
    TEXT,
    TIME,
    UNKNOWN,
    DatabaseSchema,
    SqlType,
    split_type,
)

Columns = list[tuple[str, SqlType]]
DIVISION_DIGITS = 4  # MySQL's div_precision_increment

_NAMES_BY_TYPE = {
    INT: "count row_number rank dense_rank ntile length octet_length char_length character_length locate "
    "position instr year quarter month day dayofmonth dayofweek dayofyear weekday week weekofyear "
    "hour minute second microsecond datediff timestampdiff to_days ascii sign strcmp find_in_set "
    "field isnull unix_timestamp floor ceil ceiling regexp_like signed xor bitxor",
    TEXT: "concat concat_ws left right upper lower ucase lcase trim ltrim rtrim substring substr mid "
    "substring_index replace reverse repeat space lpad rpad insert hex format date_format monthname "
    "dayname database schema version user current_user elt group_concat char text",
    DOUBLE: "sqrt pow power exp ln log log2 log10 sin cos tan radians degrees pi std stddev stddev_pop "
    "stddev_samp variance var_pop var_samp double",
    DATE: "curdate current_date utc_date date last_day",
    DATETIME: "now sysdate current_timestamp localtime localtimestamp utc_timestamp timestamp",
    TIME: "curtime current_time utc_time time",
}
FUNCTION_TYPES: Mapping[str, SqlType] = {
    name: kind for kind, names in _NAMES_BY_TYPE.items() for name in names.split()
}
SAME_AS_FIRST_WORDS = (
    "min max abs any_value nullif lag lead first_value last_value nth_value truncate round mod"
)
SAME_AS_FIRST = frozenset(SAME_AS_FIRST_WORDS.split())
SAME_AS_ALL = frozenset(["ifnull", "coalesce", "greatest", "least"])


@dataclass(kw_only=True)
class Scope:
    """The tables that names of a query mean, by alias in small letters, in the order of FROM."""

    tables: list[tuple[str, Columns]] = field(default_factory=list)
    outer: "Scope | None" = None
    names: dict[str, SqlType] = field(
        default_factory=dict
    )  # aliases of the select list, for HAVING and ORDER BY


class Types:
    """The types of the expressions of one statement, found once before it is rewritten."""

    def __init__(self, schema: DatabaseSchema):
        self._schema = schema
        self._known: dict[int, SqlType] = {}

    def of(self, node: exp.Expr | None) -> SqlType:
        """Type of an expression that was looked at; UNKNOWN for others."""
        return self._known.get(id(node), UNKNOWN)

    def query(self, query: exp.Expr, outer: Scope | None, ctes: Mapping[str, Columns]) -> Columns:
        """Names and types of the columns of a query, all of its expressions looked at."""
        found = self._query(query, outer, ctes)
        self._known[id(query)] = found[0][1] if found else UNKNOWN
        return found

    def _query(self, query: exp.Expr, outer: Scope | None, ctes: Mapping[str, Columns]) -> Columns:
        known = dict(ctes)
        for cte in (query.args.get("with_") and query.args["with_"].expressions) or ():
            self._common_table(cte, outer, known)
        if isinstance(query, exp.Subquery):
            return self.query(query.this, outer, known)
        if isinstance(query, exp.SetOperation):
            left, right = self.query(query.left, outer, known), self.query(query.right, outer, known)
            both = [
                (name, _merged([kind, right[i][1] if i < len(right) else UNKNOWN]))
                for i, (name, kind) in enumerate(left)
            ]
            scope = Scope(names={name.lower(): kind for name, kind in both}, outer=outer)
            for key in ("order", "limit", "offset"):
                self._look(query.args.get(key), scope, known)
            return both
        if isinstance(query, exp.Select):
            return self._select(query, outer, known)
        return []

    def _common_table(self, cte: exp.Expr, outer: Scope | None, known: dict[str, Columns]) -> None:
        alias = cte.args.get("alias")
        given = [column.name for column in alias.columns] if alias else []
        if isinstance(cte.this, exp.SetOperation):  # a recursive one has the types of its first query
            known[cte.alias.lower()] = _renamed(Types(self._schema).query(cte.this.left, outer, known), given)
        known[cte.alias.lower()] = _renamed(self.query(cte.this, outer, known), given)

    def _select(self, query: exp.Select, outer: Scope | None, ctes: Mapping[str, Columns]) -> Columns:
        scope = Scope(outer=outer)
        sources = [query.args["from_"].this] if query.args.get("from_") else []
        sources += [join.this for join in query.args.get("joins") or ()]
        for source in sources:
            self._add_source(scope, source, ctes)
        for join in query.args.get("joins") or ():
            self._look(join.args.get("on"), scope, ctes)
        columns: Columns = []
        for item in query.expressions:
            columns += self._item(item, scope, ctes)
        self._look(query.args.get("where"), scope, ctes)
        scope.names = {name.lower(): kind for name, kind in columns}
        for key in ("group", "having", "order", "limit", "offset", "windows"):
            value = query.args.get(key)
            for part in value if isinstance(value, list) else [value]:
                self._look(part, scope, ctes)
        return columns

    def _add_source(self, scope: Scope, source: exp.Expr, ctes: Mapping[str, Columns]) -> None:
        alias = source.alias_or_name.lower()
        if isinstance(source, exp.Table):
            table = self._schema.table(source.name)
            if source.name.lower() in ctes and not source.db:
                columns = ctes[source.name.lower()]
            elif table is not None and source.db.lower() != "information_schema":
                columns = [(column.name, column.sql_type) for column in table.columns]
            else:
                columns = []
            scope.tables.append((alias, columns))
        elif isinstance(source, exp.Subquery):
            scope.tables.append((alias, self.query(source, scope.outer, ctes)))
        elif isinstance(source, exp.Paren):
            self._add_source(scope, source.this, ctes)
        for join in source.args.get("joins") or ():
            self._add_source(scope, join.this, ctes)
            self._look(join.args.get("on"), scope, ctes)

    def _item(self, item: exp.Expr, scope: Scope, ctes: Mapping[str, Columns]) -> Columns:
        if isinstance(item, exp.Star):
            return [column for _, columns in scope.tables for column in columns] or [("*", UNKNOWN)]
        if isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            tables = [columns for alias, columns in scope.tables if alias == item.table.lower()]
            return tables[0] if tables and tables[0] else [("*", UNKNOWN)]
        return [(item.alias_or_name, self._look(item, scope, ctes))]

    def _look(self, node: Any, scope: Scope, ctes: Mapping[str, Columns]) -> SqlType:
        """Type of an expression; looks at everything below it."""
        if not isinstance(node, exp.Expr):
            return UNKNOWN
        if isinstance(node, exp.Subquery | exp.Select | exp.SetOperation):
            columns = self.query(node, scope, ctes)
            return columns[0][1] if columns else UNKNOWN
        for child in node.iter_expressions():
            self._look(child, scope, ctes)
        self._known[id(node)] = kind = self._kind(node, scope)
        return kind

    def _kind(self, node: exp.Expr, scope: Scope) -> SqlType:
        if isinstance(node, exp.Column):
            return _column(node, scope)
        if isinstance(
            node, exp.Alias | exp.Paren | exp.Neg | exp.Ordered | exp.Window | exp.Collate | exp.Distinct
        ):
            inner = node.expressions[0] if isinstance(node, exp.Distinct) else node.this
            return self.of(inner)
        if isinstance(node, exp.Anonymous):
            return self._function(node)
        if isinstance(node, exp.Case):
            branches = [branch.args.get("true") for branch in node.args.get("ifs") or ()]
            return _merged([self.of(value) for value in (*branches, node.args.get("default")) if value])
        if isinstance(node, exp.If):
            return _merged([self.of(node.args.get(key)) for key in ("true", "false") if node.args.get(key)])
        if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div | exp.IntDiv | exp.Mod):
            return _arithmetic(node, self.of(node.this), self.of(node.expression))
        if isinstance(node, exp.Cast):
            return _cast(node)
        return _leaf(node)

    def _function(self, node: exp.Anonymous) -> SqlType:
        name, arguments = node.name.lower(), node.expressions
        first = self.of(arguments[0]) if arguments else UNKNOWN
        if name in ("sum", "avg"):
            more = DIVISION_DIGITS if name == "avg" else 0
            if first.kind in ("int", "decimal", "date", "datetime"):
                return SqlType(kind="decimal", scale=(first.scale or 0) + more)
            return SqlType(kind="double", scale=None if first.scale is None else first.scale + more)
        if name in ("round", "truncate") and first.numeric:
            return _rounded(first, arguments[1:])
        if name in ("date_add", "date_sub", "adddate", "subdate"):
            return first if first.kind in ("date", "datetime") else TEXT
        if name in SAME_AS_FIRST:
            return first
        if name in SAME_AS_ALL:
            return _merged([self.of(argument) for argument in arguments])
        return FUNCTION_TYPES.get(name, UNKNOWN)


def _column(node: exp.Column, scope: Scope) -> SqlType:
    name, table = node.name.lower(), node.table.lower()
    here: Scope | None = scope
    while here is not None:
        for alias, columns in here.tables:
            if table in ("", alias):
                for column, kind in columns:
                    if column.lower() == name:
                        return kind
        if not table and name in here.names:
            return here.names[name]
        here = here.outer
    return UNKNOWN


def _renamed(columns: Columns, names: Sequence[str]) -> Columns:
    return [(names[i] if i < len(names) else name, kind) for i, (name, kind) in enumerate(columns)]


def _merged(kinds: Sequence[SqlType]) -> SqlType:
    """The one type of values that come from several expressions."""
    present = [kind for kind in kinds if kind != NULL]
    if not present:
        return NULL
    if UNKNOWN in present or len(set(present)) == 1:
        return UNKNOWN if UNKNOWN in present else present[0]
    if all(kind.kind in ("int", "decimal") for kind in present):
        return SqlType(kind="decimal", scale=max(kind.scale or 0 for kind in present))
    if all(kind.numeric for kind in present):
        return DOUBLE
    return DATETIME if all(kind.kind in ("date", "datetime") for kind in present) else TEXT


def _arithmetic(node: exp.Expr, left: SqlType, right: SqlType) -> SqlType:
    if isinstance(node, exp.IntDiv):
        return INT
    if isinstance(node, exp.Add | exp.Sub) and isinstance(node.expression, exp.Interval):
        return left
    if "unknown" in (left.kind, right.kind):
        return UNKNOWN
    exact = [kind if kind.kind not in ("date", "datetime") else INT for kind in (left, right)]
    if not all(kind.kind in ("int", "decimal", "null") for kind in exact):
        return DOUBLE
    scales = [kind.scale or 0 for kind in exact]
    if isinstance(node, exp.Div):
        return SqlType(kind="decimal", scale=scales[0] + DIVISION_DIGITS)
    if all(kind.kind != "decimal" for kind in exact):
        return INT
    return SqlType(kind="decimal", scale=sum(scales) if isinstance(node, exp.Mul) else max(scales))


def _rounded(first: SqlType, digits: Sequence[exp.Expr]) -> SqlType:
    if first.kind in ("double", "float"):
        return DOUBLE
    if not digits or first.kind == "int":
        return INT if first.kind == "int" else SqlType(kind="decimal", scale=0)
    literal = digits[0]
    wanted = (
        int(literal.name) if isinstance(literal, exp.Literal) and literal.name.isdigit() else first.scale or 0
    )
    return SqlType(kind="decimal", scale=min(wanted, first.scale or 0))


def _cast(node: exp.Cast) -> SqlType:
    name = node.to.this.name.lower() if isinstance(node.to.this, exp.DataType.Type) else ""
    if "int" in name:
        return INT
    if name == "decimal":
        _, scale = split_type(node.to.sql(dialect="mysql"))
        return SqlType(kind="decimal", scale=scale or 0)
    return {
        "date": DATE,
        **dict.fromkeys(("datetime", "timestamp", "timestamptz"), DATETIME),
        "time": TIME,
        **dict.fromkeys(("double", "float"), DOUBLE),
        **dict.fromkeys(("char", "nchar", "varchar", "text"), TEXT),
    }.get(name, UNKNOWN)


def _leaf(node: exp.Expr) -> SqlType:
    if isinstance(node, exp.Literal):
        if node.is_string:
            return TEXT
        if "e" in node.name.lower():
            return DOUBLE
        _, point, digits = node.name.partition(".")
        return SqlType(kind="decimal", scale=len(digits)) if point else INT
    if isinstance(node, exp.Null):
        return NULL
    if isinstance(node, exp.GroupConcat | exp.Trim | exp.Substring | exp.Concat | exp.Chr):
        return TEXT
    if isinstance(node, exp.CurrentDate):
        return DATE
    if isinstance(node, exp.CurrentTimestamp | exp.CurrentDatetime | exp.Localtime | exp.Localtimestamp):
        return DATETIME
    tests = exp.Predicate | exp.Connector | exp.Not | exp.Boolean | exp.Extract | exp.StrPosition | exp.Xor
    return INT if isinstance(node, tests) else UNKNOWN


def as_client(value: Any, kind: SqlType) -> Any:
    """A value of SQLite as MySQL's Python client returns it, with Decimal, date and datetime."""
    if value is None or kind.kind in ("unknown", "null", "time"):
        return value
    try:
        if kind.kind == "int":
            return round(value) if isinstance(value, float) else value
        if kind.kind == "decimal":
            quantum = Decimal(1).scaleb(-(kind.scale or 0))
            return Decimal(repr(value)).quantize(quantum, rounding=ROUND_HALF_UP)
        if kind.kind == "float":
            return float(f"{value:.6g}") if kind.scale is None else round(value, kind.scale)
        if kind.kind == "double":
            return float(value) if kind.scale is None else round(float(value), kind.scale)
        if kind.kind == "text":
            return text_of(value)
        moment = moment_of(value)
    except (ValueError, TypeError, ArithmeticError):
        return value
    return moment.date() if kind.kind == "date" else moment
