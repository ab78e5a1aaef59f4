"""MySQL for the agent: a dump that speaks MySQL's dialect, or a real server."""

from dataclasses import dataclass
from pathlib import Path

from coevo_jax.envs.intercode_sql.mysql.golds import as_valid_mysql
from coevo_jax.envs.intercode_sql.mysql.real_server import ServerConnection, ServerSandbox, parse_dsn
from coevo_jax.envs.intercode_sql.mysql.sandbox import LENIENT, STRICT, MySqlSandbox, Rules
from coevo_jax.envs.intercode_sql.mysql.stored_dump import ConvertedDump, convert_dump
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits


@dataclass(frozen=True, kw_only=True)
class Dump:
    """The databases of a MySQL dump."""

    converted: ConvertedDump

    @property
    def folder(self) -> Path:
        """Where the cache keeps it."""
        return self.converted.folder

    @property
    def names(self) -> list[str]:
        """Names of the databases as the dump writes them."""
        return [schema.name for schema in self.converted.databases]

    def tables(self, name: str) -> tuple[str, ...]:
        """Names of a database's tables."""
        return tuple(table.name for table in self.converted.schema(name).tables)

    def open(self, name: str, limits: QueryLimits, rules: Rules = STRICT) -> MySqlSandbox:
        """A sandbox of one database."""
        others = frozenset(other.lower() for other in self.names if other != name)
        return MySqlSandbox(self.converted.file(name), self.converted.schema(name), limits, rules, others)


def open_dump(path: Path) -> Dump:
    """The databases of a dump, converted once.

    Raises:
      ConfigError: the dump is missing or cannot be read.
    """
    return Dump(converted=convert_dump(path))


__all__ = [
    "LENIENT",
    "STRICT",
    "Dump",
    "MySqlSandbox",
    "Rules",
    "ServerConnection",
    "ServerSandbox",
    "as_valid_mysql",
    "open_dump",
    "parse_dsn",
]
