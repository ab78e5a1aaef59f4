"""InterCode-SQL's files: the cache of the converted dump, broken and missing files, generated task files."""

import json
import multiprocessing
import os
from decimal import Decimal
from pathlib import Path

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.intercode_sql.environment import generate_intercode_sql, make_intercode_sql
from coevo_jax.envs.intercode_sql.mysql import MySqlSandbox, open_dump
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits
from tests.envs.spider_files import DUMP, spider_rows, write_spider

LIMITS = QueryLimits(rows=100, instructions=2_000_000, seconds=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_spider(tmp_path_factory.mktemp("spider"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for the module, never the user's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("COEVO_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def sandbox_of(folder: Path, name: str) -> MySqlSandbox:
    return open_dump(folder / "ic_spider_dbs.sql").open(name, LIMITS)


def _convert_in_a_process(arguments):
    path, cache = arguments
    os.environ["COEVO_CACHE"] = cache
    return str(open_dump(Path(path)).folder)


def test_the_cache_is_whole_shared_and_follows_the_dump(tmp_path, monkeypatch):
    monkeypatch.setenv("COEVO_CACHE", str(tmp_path / "cache"))
    folder = write_spider(tmp_path / "data")
    arguments = [(str(folder / "ic_spider_dbs.sql"), str(tmp_path / "cache"))] * 4
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        folders = set(processes.map(_convert_in_a_process, arguments))
    assert len(folders) == 1
    converted = Path(folders.pop())
    assert [path.name for path in converted.parent.iterdir()] == [converted.name]
    stamp = (converted / "0.sqlite").stat().st_mtime_ns
    sandbox = sandbox_of(folder, "towns")
    assert sandbox.run("SELECT SUM(People) FROM town") == [(Decimal("13500"),)]
    assert (converted / "0.sqlite").stat().st_mtime_ns == stamp  # not converted again
    write_spider(folder, dump=DUMP.replace("('Lima',10000)", "('Lima',10001)"))
    assert sandbox_of(folder, "towns").run("SELECT SUM(People) FROM town") == [(Decimal("13501"),)]
    assert len(list(converted.parent.iterdir())) == 2
    (converted / "schemas.json").write_text("{")
    write_spider(folder)
    with pytest.raises(ConfigError, match=r"schemas\.json: cannot be read.*delete"):
        sandbox_of(folder, "towns")


def broken(rows=None, dump=DUMP):
    return {"rows": spider_rows() if rows is None else rows, "dump": dump}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (broken(rows=[]), r"ic_spider_dev\.json: found no list of questions"),
        (broken(rows=["x"]), r"ic_spider_dev\.json: row 0: top level: found \"x\""),
        (broken(rows=[{**spider_rows()[0], "hardness": "hrad"}]), r"row 0: hardness: .*did you mean 'hard'"),
        (broken(rows=[{**spider_rows()[0], "gold": 3}]), r"row 0: gold: found 3 \(integer\)"),
        (broken(rows=[*spider_rows(), {**spider_rows()[0], "db": "pet"}]), r"row 8: db: found 'pet'.*'pets'"),
        (
            broken(rows=[*spider_rows(), {**spider_rows()[0], "gold": "SELECT x FROM pet"}]),
            r"row 8: gold: .*Unknown column 'x'",
        ),
        (
            broken(dump=DUMP[: DUMP.index("'Zoë'") + 2]),
            r"ic_spider_dbs\.sql:\d+: found a text or name that never",
        ),
        (
            broken(dump=DUMP[: DUMP.index(",'1980-01-02'")]),
            r"dbs\.sql:18: found .INSERT INTO `Owner`.*without its ';'",
        ),
        (
            broken(dump=DUMP.replace("(2,'bob',", "(2,bob,")),
            r"dbs\.sql:18: found .bob.* in row 3, expected a value",
        ),
        (broken(dump=DUMP.replace("(2,'bob',", "(2,")), r"dbs\.sql:18: found 3 values in row 3, expected 4"),
        (
            broken(dump=DUMP.replace("INTO `pet` V", "INTO `cat` V")),
            r"found rows of 'cat', expected its CREATE TABLE",
        ),
        (broken(dump="SELECT 1;"), r"found no CREATE TABLE"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, files, message):
    folder = write_spider(tmp_path, **files)
    with pytest.raises(ConfigError, match=message):
        make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder)))


def test_missing_files_are_named(tmp_path, folder):
    with pytest.raises(ConfigError, match="nowhere: found no folder"):
        make_intercode_sql(InterCodeSqlOptions(spider_path=str(tmp_path / "nowhere")))
    write_spider(tmp_path)
    (tmp_path / "ic_spider_dbs.sql").rename(tmp_path / "ic_spider_db.sql")
    with pytest.raises(ConfigError, match=r"ic_spider_dbs\.sql: not found.*did you mean 'ic_spider_db\.sql'"):
        make_intercode_sql(InterCodeSqlOptions(spider_path=str(tmp_path)))


def test_generated_tasks_are_written_as_a_file(tmp_path):
    options = InterCodeSqlOptions(
        train_databases=2, dev_databases=1, test_databases=1, train_tasks=20, dev_tasks=5, test_tasks=5
    )
    seen = []
    for name in ("a", "b"):
        generate_intercode_sql(options, tmp_path / name, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 1), (1, 1)] * 2
    first, second = (tmp_path / name / "tasks.jsonl" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert sum("gold" in json.loads(line) for line in first.read_text().splitlines()) == 30
    env = make_intercode_sql(InterCodeSqlOptions(tasks_path=str(first)))
    assert env.expert(env.tasks("test")[0]).reward == 1.0
    with pytest.raises(ConfigError, match="only options of the generator"):
        generate_intercode_sql(InterCodeSqlOptions(spider_path="x"), tmp_path, lambda done, total: None)
