"""Gold queries of Spider as valid MySQL: aliases of derived tables, backticks around reserved words."""

from coevo_jax.envs.intercode_sql.mysql.queries import QueryParser
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError


def as_valid_mysql(sql: str) -> str:
    """A query with what MySQL wants and Spider's gold queries lack.

    A query that lacks nothing, or that cannot be parsed, comes back as it is.
    """
    parser = QueryParser(sql, ignore_space=True, lenient=True)
    try:
        parser.statement()
    except (SqlError, RecursionError):
        return sql
    for place, text in sorted(parser.added, reverse=True):
        sql = sql[:place] + text + sql[place:]
    return sql
