"""MySQL's statements: which kind a text is, and what all but queries are answered with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.binding_calls import SYSTEM
from coevo_jax.envs.intercode_sql.mysql.information import describe, index_rows, table_status
from coevo_jax.envs.intercode_sql.mysql.lexer import text_value
from coevo_jax.envs.intercode_sql.mysql.patterns import like
from coevo_jax.envs.intercode_sql.mysql.queries import QueryParser
from coevo_jax.envs.intercode_sql.mysql.schema import COLLATION, INT, TEXT, SqlType
from coevo_jax.envs.intercode_sql.mysql.tables import StoredDatabase, StoredTable
from coevo_jax.envs.intercode_sql.mysql.values import to_text
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

Rows = list[tuple]
QUERIES = frozenset({"select", "with", "values", "table", "("})
DEFINITIONS = frozenset(["create", "drop", "alter", "truncate", "rename"])
ADMINISTRATION = {
    "grant": "Access denied for user 'agent'@'localhost' (using password: NO)",
    "revoke": "Access denied for user 'agent'@'localhost' (using password: NO)",
    "flush": "Access denied; you need (at least one of) the RELOAD or FLUSH_TABLES privilege(s) for this "
    "operation",
    "load": errors.NO_FILE,
    **dict.fromkeys(
        (
            "kill",
            "call",
            "do",
            "handler",
            "prepare",
            "execute",
            "analyze",
            "optimize",
            "check",
            "repair",
            "install",
        ),
        errors.READ_ONLY,
    ),
}
SILENT = frozenset({"begin", "commit", "rollback", "start"})
ENGINES = (
    ("ndbcluster", "NO", "Clustered, fault-tolerant tables", None, None, None),
    ("MEMORY", "YES", "Hash based, stored in memory, useful for temporary tables", "NO", "NO", "NO"),
    ("InnoDB", "DEFAULT", "Supports transactions, row-level locking, and foreign keys", "YES", "YES", "YES"),
    ("PERFORMANCE_SCHEMA", "YES", "Performance Schema", "NO", "NO", "NO"),
    ("MyISAM", "YES", "MyISAM storage engine", "NO", "NO", "NO"),
    ("FEDERATED", "NO", "Federated MySQL storage engine", None, None, None),
    ("ndbinfo", "NO", "MySQL Cluster system information storage engine", None, None, None),
    ("MRG_MYISAM", "YES", "Collection of identical MyISAM tables", "NO", "NO", "NO"),
    (
        *("BLACKHOLE", "YES", "/dev/null storage engine (anything you write to it disappears)"),
        *("NO", "NO", "NO"),
    ),
    ("CSV", "YES", "CSV storage engine", "NO", "NO", "NO"),
    ("ARCHIVE", "YES", "Archive storage engine", "NO", "NO", "NO"),
)
Explain = Callable[[nodes.Query], str]
Filter = Callable[[Rows, Sequence[str], nodes.Node], Rows]


class StatementParser(QueryParser):
    """Parses and answers one statement that is no query."""

    def __init__(
        self, sql: str, database: StoredDatabase, others: frozenset[str], explain: Explain, where: Filter
    ):
        super().__init__(sql)
        self._database, self._others, self._explain, self._where = database, others, explain, where

    def is_query(self) -> bool:
        """Whether the text starts as a query does."""
        return self.word in QUERIES

    def answer(self) -> Rows:
        """The rows of the statement.

        Raises:
          SqlError: MySQL refuses the statement; in its words.
        """
        if self.token.kind == "end" or (self.word == ";" and all(t.word == ";" for t in self.tokens[:-1])):
            raise SqlError(errors.EMPTY)
        word = self.word
        rule = self._STATEMENTS.get(word) if self.token.kind == "name" else None
        if rule is not None:
            return rule(self)
        if word in DEFINITIONS:
            raise SqlError(errors.READ_ONLY)
        if word in ADMINISTRATION:
            raise SqlError(ADMINISTRATION[word])
        if word in SILENT:
            return []
        raise self.error()

    def _end(self) -> None:
        while self.take(";"):
            pass
        if self.token.kind != "end":
            raise self.error()

    def _database_name(self) -> str | None:
        """The database behind FROM or IN; None without one."""
        if self.word not in ("from", "in"):
            return None
        self.advance()
        return self.identifier()

    def _own(self, name: str | None) -> bool:
        """Whether a name means this database; False for information_schema; others are refused."""
        lowered = (name or self._database.name).lower()
        if lowered in (self._database.name, "information_schema", "performance_schema"):
            return lowered == self._database.name
        raise errors.database_denied(lowered) if lowered in self._others else errors.unknown_database(lowered)

    def _table(self, name: str) -> StoredTable:
        table = self._database.tables.get(name.lower())
        if table is None:
            raise errors.no_such_table(self._database.name, name.lower())
        return table

    def _filtered(self, rows: Rows, names: Sequence[str], place: int = 0) -> Rows:
        """The rows that LIKE or WHERE leaves."""
        if self.take("like"):
            if self.token.kind != "text":
                raise self.error()
            pattern = text_value(self.token.text)
            self.advance()
            self._end()
            return [row for row in rows if like(str(row[place]), pattern)]
        if self.take("where"):
            condition = self.expression()
            self._end()
            return self._where(rows, names, condition)
        self._end()
        return rows

    def _show(self) -> Rows:
        self.advance()
        full = self.take("full")
        extended = not full and self.take("extended")
        rule = self._SHOWN.get(self.word) if self.token.kind == "name" else None
        if rule is None or (extended and self.word not in ("columns", "fields", "index", "tables")):
            raise self.error()
        self.advance()
        return rule(self, full)

    def _tables(self, full: bool) -> Rows:
        if self._own(self._database_name()):
            names = [table.schema.name for _, table in sorted(self._database.tables.items())]
        else:
            names = []
        rows: Rows = [(name, "BASE TABLE") if full else (name,) for name in names]
        return self._filtered(rows, [f"Tables_in_{self._database.name}", "Table_type"][: 1 + full])

    def _databases(self, full: bool) -> Rows:
        rows: Rows = [("information_schema",), ("performance_schema",), (self._database.name,)]
        return self._filtered(sorted(rows), ["Database"])

    def _columns_of(self, full: bool) -> Rows:
        table = self._shown_table()
        rows = describe(table.schema)
        names = ["Field", "Type", "Null", "Key", "Default", "Extra"]
        if full:
            kinds = [COLLATION if c.sql_type.kind == "text" else None for c in table.schema.columns]
            rows = [(*row[:2], kind, *row[2:], "select", "") for row, kind in zip(rows, kinds, strict=True)]
            names = ["Field", "Type", "Collation", "Null", "Key", "Default", "Extra", "Privileges", "Comment"]
        return self._filtered(rows, names)

    def _shown_table(self) -> StoredTable:
        """The table behind FROM or IN, whose database may stand before or behind it."""
        if self.word not in ("from", "in"):
            raise self.error()
        self.advance()
        name = self.identifier()
        database = self._dotted()
        if database is not None:
            name, database = database, name
        self._own(self._database_name() or database)
        return self._table(name)

    def _dotted(self) -> str | None:
        if not self.take("."):
            return None
        name = self.token.text
        self.advance()
        return name

    def _index(self, full: bool) -> Rows:
        table = self._shown_table()
        names = (
            "Table Non_unique Key_name Seq_in_index Column_name Collation Cardinality Sub_part Packed Null "
        )
        names += "Index_type Comment Index_comment Visible Expression"
        return self._filtered(index_rows(table), names.split())

    def _create(self, full: bool) -> Rows:
        what = self.word
        if what not in ("table", "database", "schema", "view"):
            raise self.error()
        self.advance()
        written = self.token.text
        name = self.identifier()
        if (dotted := self._dotted()) is not None:
            self._own(name)
            name = written = dotted
        self._end()
        if what in ("database", "schema"):
            self._own(name)
            words = f"/*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE {COLLATION} */ "
            words += "/*!80016 DEFAULT ENCRYPTION='N' */"
            return [(written, f"CREATE DATABASE `{self._database.name}` {words}")]
        table = self._table(name)
        if what == "view":
            raise SqlError(f"'{self._database.name}.{table.schema.name}' is not VIEW")
        return [(written, table.schema.create)]

    def _status(self, full: bool) -> Rows:
        """SHOW TABLE STATUS."""
        self.expect("status")
        self._own(self._database_name())
        names = "Name Engine Version Row_format Rows Avg_row_length Data_length Max_data_length Index_length "
        names += "Data_free Auto_increment Create_time Update_time Check_time Collation Checksum "
        names += "Create_options Comment"
        rows = [table_status(table) for _, table in sorted(self._database.tables.items())]
        return self._filtered(rows, names.split())

    def _variables(self, full: bool) -> Rows:
        rows = [(name, to_text(value)) for name, value in sorted(SYSTEM.items())]
        return self._filtered(rows, ["Variable_name", "Value"])

    def _scoped(self, full: bool) -> Rows:
        if self.word not in ("variables", "status"):
            raise self.error()
        variables = self.word == "variables"
        self.advance()
        return self._variables(full) if variables else self._filtered([], ["Variable_name", "Value"])

    def _nothing(self, full: bool) -> Rows:
        """Lists that are empty here."""
        while self.token.kind != "end" and self.word != ";":
            self.advance()
        self._end()
        return []

    def _counted(self, full: bool) -> Rows:
        for word in ("(", "*", ")"):
            self.expect(word)
        if self.word not in ("warnings", "errors"):
            raise self.error()
        self.advance()
        self._end()
        return [(0,)]

    def _engines(self, full: bool) -> Rows:
        self._end()
        return [*ENGINES]

    def _charsets(self, full: bool) -> Rows:
        self.expect("set")
        rows: Rows = [("utf8mb4", "UTF-8 Unicode", "utf8mb4_0900_ai_ci", 4)]
        return self._filtered(rows, ["Charset", "Description", "Default collation", "Maxlen"])

    def _collations(self, full: bool) -> Rows:
        rows: Rows = [
            ("utf8mb4_0900_ai_ci", "utf8mb4", 255, "Yes", "Yes", 0, "NO PAD"),
            (COLLATION, "utf8mb4", 45, "", "Yes", 1, "PAD SPACE"),
        ]
        return self._filtered(
            rows, ["Collation", "Charset", "Id", "Default", "Compiled", "Sortlen", "Pad_attribute"]
        )

    def _grants(self, full: bool) -> Rows:
        self._end()
        name = self._database.name.replace("_", "\\_")
        user = "`agent`@`localhost`"
        return [(f"GRANT USAGE ON *.* TO {user}",), (f"GRANT SELECT ON `{name}`.* TO {user}",)]

    def _events(self, full: bool) -> Rows:
        raise errors.database_denied(self._database.name)

    def _stored(self, full: bool) -> Rows:
        self.expect("status")
        return self._nothing(full)

    def _describe(self) -> Rows:
        explained = self.word == "explain"
        self.advance()
        if self.word in QUERIES or self.word in ("format", "analyze"):
            return self._explained()
        if explained and self.word in ("update", "delete", "insert", "replace"):
            raise SqlError(errors.READ_ONLY)
        name = self.identifier()
        if (dotted := self._dotted()) is not None:
            self._own(name)
            name = dotted
        pattern = None
        if self.token.kind == "text":
            pattern = text_value(self.token.text)
            self.advance()
        elif self.token.is_name:
            pattern = self.token.text
            self.advance()
        self._end()
        rows = describe(self._table(name).schema)
        if pattern is None:
            return rows
        return [row for row in rows if like(row[0], pattern)]

    def _explained(self) -> Rows:
        if self.take("analyze"):
            raise errors.not_supported("EXPLAIN ANALYZE")
        if self.take("format"):
            self.expect("=")
            if self.word != "tree":
                raise errors.not_supported("EXPLAIN of another format than TREE")
            self.advance()
        query = self.query()
        self._end()
        return [(self._explain(query),)]

    def _use(self) -> Rows:
        self.advance()
        name = self.identifier()
        self._end()
        if name.lower() in (self._database.name, "information_schema"):
            return []
        raise errors.database_denied(name.lower())

    def _set(self) -> Rows:
        """SET of a user variable or of the session: nothing that a query here could see."""
        self.advance()
        if self.token.kind == "end":
            raise self.error()
        return []

    def _help(self) -> Rows:
        self.advance()
        if self.token.kind == "end":
            raise self.error()
        return []

    def _written(self) -> Rows:
        """INSERT, REPLACE, UPDATE and DELETE, which the user may not do."""
        word = self.word
        self.advance()
        while self.word in ("into", "from", "ignore", "low_priority", "delayed", "high_priority", "quick"):
            self.advance()
        name = self.identifier()
        if (dotted := self._dotted()) is not None:
            self._own(name)
            name = dotted
        self._table(name)
        command = {"replace": "INSERT, DELETE"}.get(word, word.upper())
        raise errors.denied(command, name.lower())

    def _locked(self) -> Rows:
        raise errors.database_denied(self._database.name)

    _STATEMENTS: Mapping[str, Callable[[Any], Rows]] = {
        "show": _show,
        **dict.fromkeys(("desc", "describe", "explain"), _describe),
        "use": _use,
        "set": _set,
        "help": _help,
        **dict.fromkeys(("insert", "replace", "update", "delete"), _written),
        **dict.fromkeys(("lock", "unlock"), _locked),
    }
    _SHOWN: Mapping[str, Callable[[Any, bool], Rows]] = {
        "tables": _tables,
        **dict.fromkeys(("databases", "schemas"), _databases),
        **dict.fromkeys(("columns", "fields"), _columns_of),
        **dict.fromkeys(("index", "indexes", "keys"), _index),
        "create": _create,
        "table": _status,
        "variables": _variables,
        **dict.fromkeys(("global", "session", "local"), _scoped),
        "count": _counted,
        "engines": _engines,
        "character": _charsets,
        "collation": _collations,
        "grants": _grants,
        "events": _events,
        **dict.fromkeys(("procedure", "function"), _stored),
        **dict.fromkeys(
            ("warnings", "errors", "status", "triggers", "open", "profiles", "plugins"), _nothing
        ),
        **dict.fromkeys(("processlist", "privileges"), _nothing),
    }


def filter_rows(
    binder_of: Callable[[list[tuple[str, SqlType]]], Any], rows: Rows, names: Sequence[str], node: nodes.Node
) -> Rows:
    """The rows of SHOW that a WHERE leaves."""
    kinds = [INT if rows and isinstance(rows[0][i], int) else TEXT for i in range(len(names))]
    compute = binder_of(list(zip(names, kinds, strict=True))).bind(node).compute
    return [row for row in rows if compute([row])]
