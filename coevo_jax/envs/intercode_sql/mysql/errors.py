"""What MySQL says about the usual mistakes, word for word."""

from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

USER = "'agent'@'localhost'"
NEAR_CHARS = 80
NO_FILE = "Access denied; you need (at least one of) the FILE privilege(s) for this operation"
READ_ONLY = "Cannot execute statement in a READ ONLY transaction."
TOO_BIG = "Got a packet bigger than 'max_allowed_packet' bytes"
EMPTY = "Query was empty"


def syntax_error(near: str, line: int = 1) -> SqlError:
    """Error 1064."""
    return SqlError(
        "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server "
        f"version for the right syntax to use near '{near[:NEAR_CHARS]}' at line {line}"
    )


def no_such_table(database: str, table: str) -> SqlError:
    """Error 1146."""
    return SqlError(f"Table '{database}.{table}' doesn't exist")


def unknown_column(name: str, clause: str) -> SqlError:
    """Error 1054."""
    return SqlError(f"Unknown column '{name}' in '{clause}'")


def unknown_database(name: str) -> SqlError:
    """Error 1049."""
    return SqlError(f"Unknown database '{name}'")


def denied(command: str, table: str) -> SqlError:
    """Error 1142: the agent may only read, and only its own database."""
    return SqlError(f"{command} command denied to user {USER} for table '{table}'")


def database_denied(database: str) -> SqlError:
    """Error 1044."""
    return SqlError(f"Access denied for user {USER} to database '{database}'")


def no_such_function(database: str, name: str) -> SqlError:
    """Error 1370, which a user who may execute nothing gets for every function that is not MySQL's own."""
    return SqlError(f"execute command denied to user {USER} for routine '{database}.{name}'")


def wrong_arguments(name: str) -> SqlError:
    """Error 1582."""
    return SqlError(f"Incorrect parameter count in the call to native function '{name}'")


def operand_columns(count: int) -> SqlError:
    """Error 1241."""
    return SqlError(f"Operand should contain {count} column(s)")


def not_supported(what: str) -> SqlError:
    """Error 1235."""
    return SqlError(f"This version of MySQL doesn't yet support '{what}'")
