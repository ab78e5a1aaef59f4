"""Rewrites a parsed MySQL query for SQLite: functions, operators and comparisons that differ there."""

from collections.abc import Callable

from sqlglot import exp

from coevo_jax.envs.intercode_sql.mysql import errors
from coevo_jax.envs.intercode_sql.mysql.functions import FUNCTIONS, PREFIX, Function
from coevo_jax.envs.intercode_sql.mysql.schema import COLLATION
from coevo_jax.envs.intercode_sql.mysql.types import Types
from coevo_jax.envs.intercode_sql.sandbox import SqlError

INTERNAL_WORDS = "TEXT NUMBER SIGNED DOUBLE XOR BITXOR TUPLE_KEY DATE_SHIFT MOMENT_NUMBER EXTRACT"
INTERNAL = frozenset(INTERNAL_WORDS.split())
CALLABLE: dict[str, Function] = {
    name: function for name, function in FUNCTIONS.items() if name not in INTERNAL
}
NATIVE_WORDS = (
    "COUNT SUM AVG MIN MAX ROW_NUMBER RANK DENSE_RANK PERCENT_RANK CUME_DIST NTILE LAG LEAD FIRST_VALUE "
    "LAST_VALUE NTH_VALUE"
)
NATIVE = frozenset(NATIVE_WORDS.split())
SPREADS_WORDS = "STD STDDEV STDDEV_POP STDDEV_SAMP VARIANCE VAR_POP VAR_SAMP"
SPREADS = frozenset(SPREADS_WORDS.split())
AGGREGATES = NATIVE | SPREADS
ONE_ARGUMENT = SPREADS | {"COUNT", "SUM", "AVG", "MIN", "MAX"}
SPECIAL_WORDS = (
    "DATE_ADD DATE_SUB ADDDATE SUBDATE DATABASE SCHEMA VERSION USER CURRENT_USER REGEXP_LIKE "
    "TIMESTAMPDIFF ROW"
)
SPECIAL = frozenset(SPECIAL_WORDS.split())
VERSION = "8.0.32"
CLOCKS = (
    exp.CurrentDate,
    exp.CurrentTime,
    exp.CurrentTimestamp,
    exp.CurrentDatetime,
    exp.Localtime,
    exp.Localtimestamp,
)
COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.In, exp.Between)
FLIPPED = {exp.EQ: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="}


def call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    """A call of one of our functions."""
    return exp.Anonymous(this=f"{PREFIX}{name.upper()}", expressions=list(arguments))


def rewrite(query: exp.Expr, types: Types, database: str) -> exp.Expr:
    """The query in words that SQLite understands as MySQL does; `query` itself stays as it is.

    Nodes are replaced from the leaves up in a copy; `types` still answers for the original ones.
    """
    copies: dict[int, exp.Expr] = {}
    copy = query.copy()
    for original, twin in zip(query.walk(bfs=False), copy.walk(bfs=False), strict=True):
        copies[id(twin)] = original
    nodes = list(copy.walk(bfs=False))
    originals = [copies[id(node)] for node in nodes]
    root: exp.Expr = copy
    for node, original in zip(reversed(nodes), reversed(originals), strict=True):
        changed = _rewrite_node(node, original, types, database)
        if changed is not node:
            if node is root:
                root = changed
            else:
                node.replace(changed)
    return root


def _rewrite_node(node: exp.Expr, original: exp.Expr, types: Types, database: str) -> exp.Expr:
    if isinstance(node, exp.Anonymous):
        return _rewrite_function(node, original, types, database)
    if isinstance(node, COMPARISONS):
        return _rewrite_comparison(node, original, types)
    if isinstance(node, CLOCKS):
        names = {exp.CurrentDate: "CURRENT_DATE", exp.CurrentTime: "CURRENT_TIME"}
        return call(names.get(type(node), "NOW"))
    rule = RULES.get(type(node))
    return node if rule is None else rule(node)


def _rewrite_function(node: exp.Anonymous, original: exp.Expr, types: Types, database: str) -> exp.Expr:
    name = node.name.upper()
    arguments = node.expressions
    if name in ("DATABASE", "SCHEMA", "VERSION", "USER", "CURRENT_USER"):
        values = {"DATABASE": database, "SCHEMA": database, "VERSION": VERSION}
        return exp.Literal.string(values.get(name, "agent@localhost"))
    if name in ("DATE_ADD", "DATE_SUB", "ADDDATE", "SUBDATE"):
        if len(arguments) != 2:
            raise errors.wrong_arguments(node.name)
        amount = (
            arguments[1]
            if isinstance(arguments[1], exp.Interval)
            else exp.Interval(this=arguments[1], unit=exp.var("DAY"))
        )
        return _shift(arguments[0], amount, -1 if "SUB" in name else 1)
    if name == "TIMESTAMPDIFF":
        return call(name, exp.Literal.string(arguments[0].name.upper()), *arguments[1:])
    if name == "REGEXP_LIKE":
        return call("REGEXP", *arguments[:2])
    if name == "ROW":
        return exp.Tuple(expressions=arguments)
    if name == "COUNT":
        _one_key(node)
    if name in ("SUM", "AVG") and types.of(original).kind == "decimal":
        _count_moments(node, original, types)
    if name in ("MIN", "MAX") and not isinstance(node.parent, exp.Window) and _has_bare_columns(original):
        return _typed_extreme(node, original, types)
    if name in NATIVE:
        return node
    called = call(name, *arguments)
    return _collated(called) if types.of(original).kind == "text" and name not in SPREADS else called


def _count_moments(node: exp.Anonymous, original: exp.Expr, types: Types) -> None:
    """SUM and AVG of dates add up numbers such as 20200131235959."""
    inside = original.expressions[0]
    if types.of(inside).kind in ("date", "datetime") and not isinstance(inside, exp.Distinct):
        node.set("expressions", [call("MOMENT_NUMBER", node.expressions[0])])


def _has_bare_columns(function: exp.Expr) -> bool:
    """Whether the SELECT of a MIN or MAX shows a column neither grouped by nor inside an aggregate."""
    select = function.find_ancestor(exp.Select)
    if select is None or function.find_ancestor(exp.Select, exp.Having, exp.Order) is not select:
        return False
    group = select.args.get("group")
    grouped = {column.sql().lower() for column in group.find_all(exp.Column)} if group else set()
    for item in select.expressions:
        for column in item.find_all(exp.Column):
            above = column.find_ancestor(exp.Anonymous, exp.Select)
            aggregated = isinstance(above, exp.Anonymous) and above.name.upper() in AGGREGATES
            if not aggregated and column.sql().lower() not in grouped:
                return True
    return False


def _typed_extreme(node: exp.Anonymous, original: exp.Expr, types: Types) -> exp.Expr:
    """MIN or MAX without SQLite's habit of showing other columns of the row where it was found."""
    called = call(f"{node.name}_ALONE", *[argument.copy() for argument in node.expressions])
    return _collated(called) if types.of(original).kind == "text" else called


def _one_key(node: exp.Anonymous) -> None:
    """COUNT(DISTINCT a, b) counts one key made of both; NULL in one leaves the row out, as in MySQL."""
    distinct = node.expressions[0] if node.expressions else None
    if isinstance(distinct, exp.Distinct) and len(distinct.expressions) > 1:
        distinct.set("expressions", [call("TUPLE_KEY", *distinct.expressions)])


def _collated(node: exp.Expr) -> exp.Expr:
    return exp.Paren(this=exp.Collate(this=node, expression=exp.var(COLLATION)))


def _is_collated(node: exp.Expr) -> bool:
    return isinstance(node, exp.Paren) and isinstance(node.this, exp.Collate)


def _operands(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.In):
        return [node.this, *node.expressions]
    if isinstance(node, exp.Between):
        return [node.this, node.args["low"], node.args["high"]]
    return [node.this, node.expression]


def _rewrite_comparison(node: exp.Expr, original: exp.Expr, types: Types) -> exp.Expr:
    """Texts beside numbers compare as numbers, texts that are no columns by MySQL's collation."""
    if not isinstance(node, exp.In | exp.Between) and isinstance(node.expression, exp.All | exp.Any):
        return _quantified(node)
    sides, kinds = _operands(node), [types.of(side) for side in _operands(original)]
    if any(isinstance(side, exp.Tuple | exp.All | exp.Any) or _is_collated(side) for side in sides):
        return node
    for side, kind in zip(sides, kinds, strict=True):
        if kind.kind == "float" and kind.scale is not None and isinstance(side, exp.Column):
            side.replace(call("ROUND", side.copy(), exp.Literal.number(kind.scale)))  # as it is printed
    if any(kind.numeric for kind in kinds) and any(kind.kind == "text" for kind in kinds):
        for side, kind in zip(sides, kinds, strict=True):
            if kind.kind == "text":
                side.replace(call("NUMBER", side.copy()))
        return node
    if any(kind.kind == "datetime" for kind in kinds):
        for side, kind in zip(sides, kinds, strict=True):
            if kind.kind in ("text", "date") and isinstance(side, exp.Literal | exp.Anonymous | exp.Column):
                side.replace(call("TIMESTAMP", side.copy()))
    elif any(kind.kind == "date" for kind in kinds):
        for side in sides:
            if isinstance(side, exp.Literal) and len(side.name) <= 10:
                side.replace(exp.func("COALESCE", call("DATE", side.copy()), side.copy()))
    elif any(kind.kind == "text" for kind in kinds) and not any(
        isinstance(side, exp.Column) for side in sides
    ):
        sides[0].replace(_collated(sides[0].copy()))
    return node


def _quantified(node: exp.Expr) -> exp.Expr:
    """`a > ALL (q)` and `a > ANY (q)`, which SQLite lacks, as NOT EXISTS and EXISTS."""
    quantifier = node.expression
    inner = quantifier.this.unnest() if isinstance(quantifier.this, exp.Subquery) else quantifier.this
    if not isinstance(inner, exp.Query) or type(node) not in FLIPPED:
        raise errors.syntax_error(quantifier.key.upper())
    test = type(node)(this=node.this.copy(), expression=exp.column("value", table="quantified"))
    every = isinstance(quantifier, exp.All)
    table = exp.CTE(
        this=inner.copy(),
        alias=exp.TableAlias(this=exp.to_identifier("quantified"), columns=[exp.to_identifier("value")]),
    )
    body = exp.select("1").from_("quantified").where(exp.Not(this=exp.Paren(this=test)) if every else test)
    body.set("with_", exp.With(expressions=[table]))
    exists = exp.Exists(this=body)
    return exp.Not(this=exists) if every else exists


def _shift(value: exp.Expr, interval: exp.Expr, sign: int) -> exp.Expr:
    unit = interval.args.get("unit")
    amount = interval.this
    if unit is None or amount is None:
        raise errors.syntax_error("INTERVAL")
    count = exp.Literal.number(sign) if sign > 0 else exp.Neg(this=exp.Literal.number(1))
    return call("DATE_SHIFT", value.copy(), amount.copy(), exp.Literal.string(unit.name.upper()), count)


def _sum(node: exp.Expr) -> exp.Expr:
    sign = 1 if isinstance(node, exp.Add) else -1
    if isinstance(node.expression, exp.Interval):
        return _shift(node.this, node.expression, sign)
    if isinstance(node.this, exp.Interval) and sign > 0:
        return _shift(node.expression, node.this, sign)
    return node


def _cast(node: exp.Expr) -> exp.Expr:
    kind = node.args["to"].this
    name = kind.name.lower() if isinstance(kind, exp.DataType.Type) else ""
    if name == "decimal":
        digits = [parameter.name for parameter in node.args["to"].expressions]
        return call("ROUND", node.this.copy(), exp.Literal.number(digits[1] if len(digits) > 1 else 0))
    if name in ("binary", "varbinary"):
        return exp.Paren(this=exp.Collate(this=node.this.copy(), expression=exp.var("BINARY")))
    names = {
        "date": "DATE",
        "time": "TIME",
        **dict.fromkeys(("datetime", "timestamp", "timestamptz"), "TIMESTAMP"),
    }
    names |= {
        **dict.fromkeys(("double", "float"), "DOUBLE"),
        **dict.fromkeys(("char", "nchar", "varchar", "text"), "TEXT"),
    }
    if "int" in name:
        return call("SIGNED", node.this.copy())
    if name not in names:
        raise errors.not_supported(f"CAST AS {name.upper()}")
    called = call(names[name], node.this.copy())
    return _collated(called) if names[name] == "TEXT" else called


def _collate(node: exp.Expr) -> exp.Expr:
    binary = node.expression.name.lower().endswith(("_bin", "binary", "_cs"))
    node.set("expression", exp.var("BINARY" if binary else COLLATION))
    return node


def _like(node: exp.Expr) -> exp.Expr:
    if isinstance(node.parent, exp.Escape) or "\\" not in node.expression.sql():
        return node
    return exp.Escape(this=node.copy(), expression=exp.Literal.string("\\"))


def _group_concat(node: exp.Expr) -> exp.Expr:
    inner, keys = node.this, []
    if isinstance(inner, exp.Order):
        keys, inner = inner.expressions, inner.this
    distinct = isinstance(inner, exp.Distinct)
    values = inner.expressions if isinstance(inner, exp.Distinct) else [inner]
    value = values[0] if len(values) == 1 else call("CONCAT", *[one.copy() for one in values])
    separator = node.args.get("separator")
    descending = "".join("d" if key.args.get("desc") else "a" for key in keys)
    return call(
        "GROUP_CONCAT",
        exp.Literal.number(int(distinct)),
        separator.copy() if separator else exp.Literal.string(","),
        exp.Literal.string(descending),
        value.copy(),
        *[key.this.copy() for key in keys],
    )


def _join(node: exp.Expr) -> exp.Expr:
    if (node.args.get("kind") or "").upper() == "STRAIGHT_JOIN":
        node.set("kind", None)
    return node


def _table(node: exp.Expr) -> exp.Expr:
    if node.args.get("db") and node.args["db"].name.lower() != "information_schema":
        node.set("db", None)
    for unknown in ("hints", "partition", "when", "version"):
        node.set(unknown, None)
    return node


def _column(node: exp.Expr) -> exp.Expr:
    node.set("db", None)
    return node


def _select(node: exp.Expr) -> exp.Expr:
    source = node.args.get("from_")
    if (
        source is not None
        and isinstance(source.this, exp.Table)
        and source.this.name.lower() == "dual"
        and not source.this.db
    ):
        node.set("from_", None)
    node.set("hint", None)
    return node


def _if(node: exp.Expr) -> exp.Expr:
    if isinstance(node.parent, exp.Case):  # a branch of CASE
        return node
    return call(
        "IF", node.this.copy(), node.args["true"].copy(), (node.args.get("false") or exp.Null()).copy()
    )


def _interval(node: exp.Expr) -> exp.Expr:
    if isinstance(node.parent, exp.Add | exp.Sub | exp.Anonymous):
        return node
    raise SqlError("Incorrect usage of INTERVAL")


RULES: dict[type[exp.Expr], Callable[[exp.Expr], exp.Expr]] = {
    exp.If: _if,
    exp.RegexpLike: lambda node: call("REGEXP", node.this.copy(), node.expression.copy()),
    exp.Extract: lambda node: call("EXTRACT", exp.Literal.string(node.name.upper()), node.expression.copy()),
    exp.Trim: lambda node: _collated(
        call(
            "TRIM",
            node.this.copy(),
            (node.expression or exp.Literal.string(" ")).copy(),
            exp.Literal.string(node.args.get("position") or "BOTH"),
        )
    ),
    exp.Substring: lambda node: _collated(
        call(
            "SUBSTRING", *[node.args[key].copy() for key in ("this", "start", "length") if node.args.get(key)]
        )
    ),
    exp.StrPosition: lambda node: call("LOCATE", node.args["substr"].copy(), node.this.copy()),
    exp.Mod: lambda node: call("MOD", node.this.copy(), node.expression.copy()),
    exp.Xor: lambda node: call("XOR", node.this.copy(), node.expression.copy()),
    exp.BitwiseXor: lambda node: call("BITXOR", node.this.copy(), node.expression.copy()),
    exp.Add: _sum,
    exp.Sub: _sum,
    exp.Cast: _cast,
    exp.Collate: _collate,
    exp.Like: _like,
    exp.GroupConcat: _group_concat,
    exp.Join: _join,
    exp.Table: _table,
    exp.Column: _column,
    exp.Select: _select,
    exp.Interval: _interval,
}
