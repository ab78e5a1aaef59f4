"""The terms of constants."""

from typing import Any

from coevo_jax.envs.intercode_sql.mysql import nodes
from coevo_jax.envs.intercode_sql.mysql.moments import moment_of, time_of
from coevo_jax.envs.intercode_sql.mysql.schema import (
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    NULL,
    TEXT,
    TIME,
    UNSIGNED_INT,
    SqlType,
)
from coevo_jax.envs.intercode_sql.mysql.terms import Term, constant
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

LITERALS = {"text": TEXT, "double": DOUBLE, "null": NULL, "bytes": BYTES}


def literal_term(node: nodes.Literal) -> Term:
    """The term of a constant as written.

    Raises:
      SqlError: the constant stands as a date or time and is none.
    """
    if node.kind == "int":
        return constant(node.value, UNSIGNED_INT if node.value >= 2**63 else INT, node)
    if node.kind == "decimal":
        return constant(node.value, SqlType(kind="decimal", scale=node.scale), node)
    if node.kind in ("date", "datetime", "time"):
        return constant(*_moment_literal(node))
    return constant(node.value, LITERALS[node.kind], node)


def _moment_literal(node: nodes.Literal) -> tuple[Any, SqlType, nodes.Literal]:
    kind = {"date": DATE, "datetime": DATETIME, "time": TIME}[node.kind]
    value: Any = time_of(node.value) if node.kind == "time" else moment_of(node.value)
    if value is None:
        raise SqlError(f"Incorrect {node.kind.upper()} value: '{node.value}'")
    return (value.date() if node.kind == "date" else value), kind, node
