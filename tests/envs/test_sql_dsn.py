"""A server's DSN, the options beside it and the guard before it; no password ever shows."""

import pytest

from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.envs.intercode_sql.environment import make_intercode_sql
from coevo_jax.envs.intercode_sql.mysql import parse_dsn
from coevo_jax.envs.intercode_sql.mysql.guard import check_statement
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError
from tests.envs.spider_files import write_spider


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COEVO_CACHE", str(tmp_path / "cache"))
    return write_spider(tmp_path / "spider")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spider_path": "x", "train_tasks": 3}, "only spider_path's options .*train_tasks"),
        ({"spider_path": "x", "tasks_path": "y"}, "only spider_path's options .*tasks_path"),
        ({"dsn": "mysql://me:geheim@h"}, "spider_path beside dsn"),
        ({"spider_path": "x", "dsn": "mysql://me:geheim@h", "query_instructions": 20_000}, "no query_instr"),
    ],
)
def test_options_that_do_not_fit_are_refused_without_the_password(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        validate(InterCodeSqlOptions, options, "config", "env.options")
    assert "geheim" not in str(caught.value)


def test_a_dsn_is_read_and_its_password_never_shown(monkeypatch):
    monkeypatch.setenv("COEVO_SQL_DSN", "mysql://me:ge%40heim@db.example:3307")
    dsn = parse_dsn("$COEVO_SQL_DSN")
    assert (dsn.user, dsn.password, dsn.host, dsn.port) == ("me", "ge@heim", "db.example", 3307)
    assert "heim" not in repr(dsn)
    assert parse_dsn("mysql://me@localhost/?unix_socket=/run/s.sock").socket == "/run/s.sock"
    monkeypatch.delenv("COEVO_SQL_DSN")
    for text in ("$COEVO_SQL_DSN", "postgres://me:geheim@h", "mysql://h", "mysql://me:geheim@h:x", "geheim"):
        with pytest.raises(ConfigError, match=r"env\.options\.dsn: found .*expected mysql://") as caught:
            parse_dsn(text)
        assert "geheim" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_clear_error(folder, tmp_path):
    options = InterCodeSqlOptions(
        spider_path=str(folder), dsn=f"mysql://me:geheim@localhost/?unix_socket={tmp_path}/none.sock"
    )
    with pytest.raises(ConfigError, match=r"no connection at .*none\.sock for user me") as caught:
        make_intercode_sql(options)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE pet",
        "SELECT 1; DROP TABLE pet",
        "/*!50000 DROP TABLE pet */",
        "SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT SLEEP (9)",
        "SELECT * FROM pet FOR UPDATE",
        "SELECT * FROM pet LOCK IN SHARE MODE",
        "SELECT * FROM mysql.user",
        "SELECT * FROM `mysql` . `user`",
        "SET GLOBAL read_only = 0",
        "SELECT @a := 1",
        "SHOW GRANTS",
        "SELECT `sleep`(9)",
        "SELECT `load_file`('/etc/passwd')",
        "SELECT `GET_LOCK`('a', 1)",
        "SELECT /*+ MAX_EXECUTION_TIME(0) */ 1",
        "SELECT /*+ SET_VAR(max_execution_time=0) */ 1",
        "SELECT @@hostname",
        "SELECT @@`datadir`",
        "SELECT * FROM `performance_schema`.`threads`",
        "SELECT * FROM towns.town",
        "SHOW TABLES FROM `mysql`",
        "SHOW VARIABLES",
        "SHOW PROCESSLIST",
        "SHOW COLUMNS FROM pet WHERE SLEEP(9)",
        "SHOW COLUMNS FROM pet WHERE Field IN (SELECT a.code FROM pet a, pet b)",
        "SHOW COLUMNS FROM `user` FROM `mysql`",
        "SHOW CREATE TABLE mysql.user",
        "DESC mysql.user",
        "EXPLAIN SELECT SLEEP(9)",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN FOR CONNECTION 1",
        "USE mysql",
        "SELECT '\x00'",
        "SELECT '" + "a" * 100_000,
        "SELECT 'abc",
        "",
        ";",
    ],
)
def test_the_guard_of_a_server_refuses_before_it_is_asked(sql):
    with pytest.raises(SqlError):
        check_statement(sql, "pets")


def test_the_guard_lets_reading_through():
    for sql in (
        "SELECT 'sleep(9); into mysql.user' FROM pet;",
        "SELECT rand, `into` FROM pets.pet",
        "SELECT sleep FROM pet WHERE benchmark > 1",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
        "SHOW FULL COLUMNS FROM pet FROM pets WHERE Field LIKE 'a%'",
        "SHOW TABLES LIKE '%mysql%'",
        "EXPLAIN SELECT * FROM pet",
        "(SELECT 1) UNION (SELECT 2)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "SHOW COLUMNS FROM pet",
        "DESC pet",
    ):
        check_statement(sql, "pets")
