"""What MySQL says about the usual mistakes, word for word."""

import re

from sqlglot import exp

from coevo_jax.envs.intercode_sql.sandbox import SqlError

USER = "'agent'@'localhost'"
NEAR_CHARS = 80

CLAUSES: dict[type[exp.Expr], str] = {
    exp.Where: "where clause",
    exp.Having: "having clause",
    exp.Group: "group statement",
    exp.Order: "order clause",
    exp.Join: "on clause",
}


def syntax_error(near: str, line: int = 1) -> SqlError:
    """Error 1064."""
    return SqlError(
        "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server "
        f"version for the right syntax to use near '{near[:NEAR_CHARS]}' at line {line}"
    )


def no_such_table(database: str, table: str) -> SqlError:
    """Error 1146."""
    return SqlError(f"Table '{database}.{table}' doesn't exist")


def denied(command: str, table: str) -> SqlError:
    """Error 1142: the agent may only read, and only its own database."""
    return SqlError(f"{command} command denied to user {USER} for table '{table}'")


def database_denied(database: str) -> SqlError:
    """Error 1044."""
    return SqlError(f"Access denied for user {USER} to database '{database}'")


def no_such_function(database: str, name: str) -> SqlError:
    """Error 1305."""
    return SqlError(f"FUNCTION {database}.{name} does not exist")


def wrong_arguments(name: str) -> SqlError:
    """Error 1582."""
    return SqlError(f"Incorrect parameter count in the call to native function '{name}'")


def not_supported(what: str) -> SqlError:
    """Error 1235."""
    return SqlError(f"This version of MySQL doesn't yet support '{what}'")


def from_sqlite(message: str, statement: exp.Expr, sql: str) -> SqlError:
    """SQLite's message in MySQL's words; `statement` is the query as the agent wrote it."""
    if found := re.match(r"no such column: (.*)", message):
        name = re.sub(r"[`\"]", "", found[1])
        return SqlError(f"Unknown column '{name}' in '{_clause(name, statement)}'")
    if found := re.match(r"ambiguous column name: (.*)", message):
        name = re.sub(r"[`\"]", "", found[1])
        return SqlError(f"Column '{name}' in {_clause(name, statement)} is ambiguous")
    if found := re.match(r"no such table: (.*)", message):
        return SqlError(f"Unknown table '{found[1]}'")
    if found := re.match(r"cannot join using column (\w+)", message):
        return SqlError(f"Unknown column '{found[1]}' in 'from clause'")
    if message in ("incomplete input", "datatype mismatch"):
        return syntax_error("")
    if found := re.match(r'near "(.*)": syntax error', message, re.DOTALL):
        place = sql.lower().find(found[1].lower())
        return syntax_error(sql[max(place, 0) :])
    if found := re.match(r"(\d+)\w\w (ORDER|GROUP) BY term out of range", message):
        key = statement.args.get(found[2].lower())
        term = key.expressions[int(found[1]) - 1].sql().split()[0] if key else found[1]
        return SqlError(f"Unknown column '{term}' in '{CLAUSES[type(key)]}'" if key else message)
    for pattern, words in _MESSAGES.items():
        if found := re.search(pattern, message):
            return SqlError(found.expand(words))
    return SqlError(message)


_MESSAGES = {
    r"SELECTs to the left and right of": "The used SELECT statements have a different number of columns",
    r"misuse of (?:window|aggregate)": "Invalid use of group function",
    r"aggregate functions are not allowed": "Invalid use of group function",
    r"sub-select returns \d+ columns - expected (\d+)": r"Operand should contain \1 column(s)",
    r"row value misused": "Operand should contain 1 column(s)",
    r"no tables specified": "No tables used",
    r"wrong number of arguments to function (?:MYSQL_)?(\w+)": (
        r"Incorrect parameter count in the call to native function '\1'"
    ),
}


def _clause(name: str, statement: exp.Expr) -> str:
    """Words for the clause in which a column stands first."""
    for column in statement.find_all(exp.Column, bfs=False):
        written = f"{column.table}.{column.name}" if column.table else column.name
        if name.lower() not in (written.lower(), column.name.lower()):
            continue
        parent = column.parent
        while parent is not None and not isinstance(parent, exp.Query):
            if type(parent) in CLAUSES:
                return CLAUSES[type(parent)]
            parent = parent.parent
        return "field list"
    return "field list"
