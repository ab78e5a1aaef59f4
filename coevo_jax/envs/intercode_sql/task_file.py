"""Task files: databases and tasks as JSON lines, to keep a generated set or to bring one's own."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Literal

from pydantic import Field

from coevo_jax.config.strict import ConfigError, StrictModel, nearest, validate
from coevo_jax.envs.env import Task
from coevo_jax.envs.intercode_sql.sqlite_sandbox import Database, QueryLimits, Sandbox, SqlError
from coevo_jax.envs.intercode_sql.tasks import SqlTask, TaskSet, make_task_set
from coevo_jax.files import write_whole

Cell = int | float | str | None


class DatabaseRecord(StrictModel):
    """A line that holds a database; it stands before the tasks over it."""

    database: str = Field(min_length=1)
    """Name of the database."""
    tables: tuple[str, ...] = Field(min_length=1)
    """CREATE TABLE statements in SQLite's dialect."""
    rows: tuple[tuple[str, tuple[tuple[Cell, ...], ...]], ...] = ()
    """Pairs of a table and its rows, each a list of one cell for every column."""


class TaskRecord(StrictModel):
    """A line that holds a task."""

    id: str = Field(min_length=1)
    """Name of the task, used once."""
    split: Literal["train", "dev", "test"]
    """Split of the task."""
    db: str
    """Database the question is about."""
    question: str = Field(min_length=1)
    """The question in words."""
    gold: str
    """Query whose rows are the answer."""
    family: str = Field(min_length=1)
    """Question form, for tables."""


def write_tasks(path: str | os.PathLike[str], task_set: TaskSet) -> None:
    """Write databases and tasks as a file that `read_tasks` reads back to an equal set."""
    lines = [
        {"database": database.name, "tables": database.tables, "rows": database.rows}
        for database in task_set.databases.values()
    ]
    for one in task_set.tasks.values():
        lines.append(
            {
                "id": one.task.id,
                "split": one.task.split,
                "db": one.database,
                "question": one.question,
                "gold": one.gold,
                "family": one.task.family,
            }
        )
    write_whole(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_tasks(path: str | os.PathLike[str], limits: QueryLimits) -> TaskSet:
    """Read a task file in its order.

    Every database is created and every gold query is run within the limits.

    Raises:
      ConfigError: a line is wrong; the message names the file and the first such line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: found no readable text ({error}), expected a task file (JSON lines)"
        ) from error
    databases: dict[str, Database] = {}
    sandboxes: dict[str, Sandbox] = {}
    tasks: dict[str, SqlTask] = {}
    for number, line in enumerate(lines, start=1):
        source = f"{path}:{number}"
        record = _parse(line, source)
        if "database" in record:
            database = _read_database(record, source, databases)
            databases[database.name] = database
            sandboxes[database.name] = _create(database, limits, source)
        else:
            one = _read_task(record, source, tasks, sandboxes, limits)
            tasks[one.task.id] = one
    for sandbox in sandboxes.values():
        sandbox.close()
    if not tasks:
        raise ConfigError(
            f"{path}: found no task, expected at least one line with id, split, db, question, gold, family"
        )
    return make_task_set(databases, list(tasks.values()))


def _parse(line: str, source: str) -> dict:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{source}: found {line[:60]!r}, expected a JSON object ({error})") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{source}: found {line[:60]!r}, expected a JSON object")
    return record


def _read_database(record: dict, source: str, databases: dict[str, Database]) -> Database:
    read = validate(DatabaseRecord, record, source)
    if read.database in databases:
        raise ConfigError(f"{source}: database: found {read.database!r} a second time, expected a new name")
    return Database(name=read.database, tables=read.tables, rows=read.rows)


def _create(database: Database, limits: QueryLimits, source: str) -> Sandbox:
    for statement in database.tables:
        if not statement.lstrip().upper().startswith("CREATE TABLE"):
            raise ConfigError(
                f"{source}: tables: found {statement[:60]!r}, expected a CREATE TABLE statement"
            )
    try:
        return Sandbox(database, limits)
    except sqlite3.Error as error:
        raise ConfigError(f"{source}: tables, rows: SQLite refuses them: {error}") from error


def _read_task(
    record: dict, source: str, tasks: dict[str, SqlTask], sandboxes: dict[str, Sandbox], limits: QueryLimits
) -> SqlTask:
    read = validate(TaskRecord, record, source)
    if read.id in tasks:
        raise ConfigError(f"{source}: id: found {read.id!r} a second time, expected a new one")
    if read.db not in sandboxes:
        raise ConfigError(
            f"{source}: db: found {read.db!r}, expected a database of an earlier line"
            f"{nearest(read.db, list(sandboxes))}"
        )
    try:
        rows = sandboxes[read.db].run(read.gold)
    except SqlError as error:
        raise ConfigError(
            f"{source}: gold: found {read.gold[:80]!r}, expected a query that runs: {error}"
        ) from error
    if len(rows) >= limits.rows:
        raise ConfigError(f"{source}: gold: found {limits.rows} or more rows, expected fewer than row_cap")
    task = Task(id=read.id, split=read.split, family=read.family)
    return SqlTask(task=task, database=read.db, question=read.question, gold=read.gold)
