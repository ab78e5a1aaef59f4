"""InterCode-SQL's real tasks: MySQL's dialect over a converted dump, reward, experts, splits, bad files."""

import os
import re
import time
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS
from coevo_jax.envs.intercode_sql.environment import make_intercode_sql
from coevo_jax.envs.intercode_sql.mysql import LENIENT, STRICT, MySqlSandbox, Rules, open_dump
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.reward import intercode_reward
from coevo_jax.envs.intercode_sql.spider import split_databases
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits, SqlError
from tests.envs.mysql_rules import REFUSALS, RULES
from tests.envs.mysql_speech import SPEECH
from tests.envs.spider_files import write_spider

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


def sandbox_of(folder: Path, name: str, rules: Rules = STRICT) -> MySqlSandbox:
    return open_dump(folder / "ic_spider_dbs.sql").open(name, LIMITS, rules)


@pytest.fixture(scope="module")
def pets(folder):
    sandbox = sandbox_of(folder, "pets")
    yield sandbox
    sandbox.close()


@pytest.fixture
def env(folder):
    instance = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder)))
    yield instance
    instance.close()


def all_tasks(env) -> list:
    return [task for split in SPLITS for task in env.tasks(split)]


def refusal(sandbox, sql: str) -> str:
    with pytest.raises(SqlError) as caught:
        sandbox.run(sql)
    return str(caught.value)


def test_a_dump_keeps_every_value(pets):
    assert pets.run("SELECT * FROM Owner") == [
        (1, "Ann", date(1980, 1, 2), 'Rome; it\'s "far"'),
        (2, "bob", date(2000, 12, 31), None),
        (3, "Zoë", date(1990, 5, 6), "Oslo"),
        (4, "Cy's", date(1985, 7, 8), "Line\nbreak"),
    ]
    assert pets.run("SELECT * FROM pet WHERE code = 'd1'") == [
        ("d1", 1, "Dog", 20.5, 7.8, Decimal("99.99"), datetime(2021, 6, 7, 8, 9, 10), "10")
    ]


def test_every_expert_scores_one_within_the_turns_and_agrees_with_a_play(env):
    tasks = all_tasks(env)
    assert len(tasks) == 8
    for task in tasks:
        demonstration = env.expert(task)
        assert demonstration.reward == 1.0
        assert len(demonstration.turns) <= env.max_turns(task)
        assert demonstration.turns[0].action == "execute[SHOW TABLES]"
        assert any("DESC" in turn.action for turn in demonstration.turns)
        assert env.reset(task) == demonstration.prompt
        for turn in demonstration.turns:
            result = env.step(turn.action)
            assert result.observation == turn.observation and "Error" not in result.observation
        assert result.done and result.reward == 1.0


def test_golds_become_valid_mysql_and_tasks_say_what_they_are(env):
    golds = {one.task.id: one.gold for one in env._task_set.tasks.values()}
    assert golds["pets/0"] == "SELECT name FROM owner ORDER BY name"
    assert golds["stage/4"] == "SELECT avg(Seats) FROM `SHOW`"
    assert golds["stage/5"].endswith("AS derived_1")
    families = {task.id: task.family for task in all_tasks(env)}
    assert families["pets/3"] == "hard" and families["stage/5"] == "extra"
    task = next(task for task in all_tasks(env) if task.id == "towns/6")
    assert env.reset(task) == "Database towns. Question: Question 6?"


def test_few_turns_leave_out_descriptions(folder):
    env = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), max_turns=4))
    task = next(task for task in all_tasks(env) if task.id == "pets/1")
    demonstration = env.expert(task)
    assert len(demonstration.turns) == 4 and demonstration.reward == 1.0
    assert [turn.action for turn in demonstration.turns[:2]] == [
        "execute[SHOW TABLES]",
        "execute[DESC owner]",
    ]


def test_a_gold_answer_that_reaches_the_row_cap_is_refused(folder):
    with pytest.raises(ConfigError, match=r"row 0: gold: found 4 or more rows, expected fewer than row_cap"):
        make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), row_cap=4))


def test_an_empty_answer_is_right_where_gold_is_empty_and_nowhere_else(env):
    by_id = {task.id: task for task in all_tasks(env)}
    for task_id, sql, reward in (
        ("pets/3", "SELECT name FROM owner WHERE id = 99", 1.0),
        ("pets/3", "SELECT name FROM owner", 0.0),
        ("pets/3", "SELECT nothing FROM owner", 0.0),
        ("pets/0", "SELECT name FROM owner WHERE id = 99", 0.0),
        ("pets/0", "SELECT name FROM owner ORDER BY name LIMIT 2", 0.5),
        ("pets/0", "SELECT name FROM owner ORDER BY name DESC", 0.0),
        ("pets/2", "SELECT 2", 1.0),
        ("pets/2", "SELECT 2.0", 0.0),
    ):
        env.reset(by_id[task_id])
        env.step(f"execute[{sql}]")
        assert env.step("submit").reward == reward, (task_id, sql)


def test_reward_counts_types_as_text():
    gold = [(Decimal("2.0000"), date(2020, 1, 1)), (None, "x")]
    assert intercode_reward(list(gold), gold) == 1.0
    assert intercode_reward([(2.0, date(2020, 1, 1)), (None, "x")], gold) == 1 / 3
    many = [(number % 977,) for number in range(3000)]
    assert intercode_reward(many, list(many)) == 1.0
    assert intercode_reward(many[::-1], many) == 0.0


def test_splits_are_disjoint_by_database_fixed_and_seeded(folder):
    counts = {f"db{number}": 10 + number for number in range(20)}
    splits = split_databases(counts, 0, "x")
    assert splits == split_databases(dict(reversed(counts.items())), 0, "x")
    assert any(split_databases(counts, seed, "x") != splits for seed in (1, 2))
    sizes = {split: sum(counts[name] for name in counts if splits[name] == split) for split in SPLITS}
    assert sizes["test"] >= 0.2 * sum(counts.values()) and sizes["dev"] >= 0.1 * sum(counts.values())
    assert sizes["train"] > 0.5 * sum(counts.values())
    env = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder)))
    databases = [{task.id.split("/")[0] for task in env.tasks(split)} for split in SPLITS]
    assert all(databases) and sum(map(len, databases)) == len(set.union(*databases)) == 3
    with pytest.raises(ConfigError, match="found 2 databases, expected at least 3"):
        split_databases({"a": 1, "b": 2}, 0, "x")


@pytest.mark.parametrize(("sql", "rows"), SPEECH)
def test_mysql_speech(pets, sql, rows):
    """Every expectation was compared with a MySQL server, but for versions, the clock and other databases."""
    found = [row[: len(rows[0])] for row in pets.run(sql)] if rows else pets.run(sql)
    assert str(found[: len(rows)]) == str(rows)
    assert [tuple(map(type, row)) for row in found[: len(rows)]] == [tuple(map(type, row)) for row in rows]


@pytest.mark.parametrize(("sql", "rows"), RULES)
def test_answers_are_those_of_mysql(pets, sql, rows):
    assert repr(pets.run(sql)) == repr(rows)


@pytest.mark.parametrize(("sql", "words"), REFUSALS)
def test_what_mysql_refuses_is_refused_with_its_words(pets, sql, words):
    begin = "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server "
    begin += "version for the right syntax to use near "
    assert refusal(pets, sql) == words.replace("SYNTAX ", begin)


def test_lax_rules_take_what_strict_ones_refuse_and_a_gold_query_always_runs_under_them(folder, pets):
    ungrouped = "SELECT kind, code, MAX(weight) FROM pet WHERE kind = 'cat' GROUP BY kind"
    spaced = "SELECT count (*) FROM pet"
    lax = sandbox_of(folder, "pets", LENIENT)
    for sql, rows in ((ungrouped, [("Cat", "c1", 4.1)]), (spaced, [(4,)])):
        refusal(pets, sql)
        assert pets.run_gold(sql) == rows
        assert lax.run(sql) == rows
    strict = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder)))
    task = next(task for task in all_tasks(strict) if task.id == "pets/2")
    gold = strict._task_set.tasks["pets/2"].gold
    assert gold == 'SELECT count (*) FROM pet WHERE kind = "CAT"'
    strict.reset(task)
    assert "syntax" in strict.step("execute[SELECT count (*) FROM pet]").observation
    assert strict.step(f"execute[{gold}]").observation == "[(2,)]"
    assert strict.step("submit").reward == 1.0
    free = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), strict=False))
    free.reset(task)
    assert free.step("execute[SELECT count (*) FROM pet]").observation == "[(4,)]"


SYNTAX = "You have an error in your SQL syntax; check the manual .* near '"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM dog", r"Table 'pets\.dog' doesn't exist"),
        ("DESC dog", r"Table 'pets\.dog' doesn't exist"),
        ("SELECT size_of FROM pet", "Unknown column 'size_of' in 'field list'"),
        ("SELECT `size_of` FROM pet", "Unknown column 'size_of' in 'field list'"),
        ("SELECT code FROM pet WHERE T9.x = 1", "Unknown column 'T9.x' in 'where clause'"),
        ("SELECT code FROM pet ORDER BY nope", "Unknown column 'nope' in 'order clause'"),
        ("SELECT code FROM pet GROUP BY nope", "Unknown column 'nope' in 'group statement'"),
        ("SELECT code FROM pet JOIN owner ON nope = id", "Unknown column 'nope' in 'on clause'"),
        ("SELECT code FROM pet ORDER BY 9", "Unknown column '9' in 'order clause'"),
        ("SELECT code FROM pet a JOIN pet b ON a.code = b.code", "Column 'code' in field list is ambiguous"),
        ("SELEC 1", SYNTAX + "SELEC 1' at line 1"),
        ("SELECT code\nFROM pet WHERE", SYNTAX + "' at line 2"),
        ("SELECT FOO(1)", r"execute command denied to user 'agent'@'localhost' for routine 'pets\.FOO'"),
        ("SELECT LEFT('a')", SYNTAX + r"\)' at line 1"),
        ("SELECT LPAD('a')", "Incorrect parameter count in the call to native function 'LPAD'"),
        ("SELECT 1 FROM (SELECT 1)", "Every derived table must have its own alias"),
        ("SELECT code FROM pet WHERE AVG(weight) > 1", "Invalid use of group function"),
        ("SELECT (SELECT id, name FROM owner)", r"Operand should contain 1 column\(s\)"),
        ("SELECT 1 UNION SELECT 1, 2", "The used SELECT statements have a different number of columns"),
        ("SELECT * FROM towns.town", "SELECT command denied to user 'agent'@'localhost' for table 'town'"),
        ("USE stage", "Access denied for user 'agent'@'localhost' to database 'stage'"),
        ("SELECT * FROM nosuch.t", "Unknown database 'nosuch'"),
        ("DROP TABLE pet", r"Cannot execute statement in a READ ONLY transaction\."),
        ("INSERT INTO pet VALUES (1)", "INSERT command denied to user 'agent'@'localhost' for table 'pet'"),
        ("SELECT 1; SELECT 2", SYNTAX + "SELECT 2' at line 1"),
        (
            "SELECT name FROM owner WHERE name REGEXP '['",
            r"The regular expression contains an unclosed bracket expression\.",
        ),
        ("SELECT name FROM owner WHERE name REGEXP 'a)'", "Mismatched parenthesis in regular expression"),
        ("EXPLAIN SELECT 1", "This version of MySQL doesn't yet support 'EXPLAIN of this query'"),
    ],
)
def test_errors_are_worded_as_mysql_words_them(pets, sql, words):
    assert re.fullmatch(f"{words}.*", refusal(pets, sql)), refusal(pets, sql)


def test_errors_start_as_intercode_writes_them(env):
    env.reset(env.tasks("train")[0])
    assert env.step("execute[SELECT 1 FROM nowhere]").observation.startswith("Error executing query: Table '")


RUNAWAY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.mark.parametrize(
    "sql",
    [
        RUNAWAY.replace("i + 1 FROM n", "a.i + 1 FROM n a, pet b") + "SELECT MAX(i) FROM n",
        "SELECT COUNT(*) FROM " + ", ".join(f"pet p{number}" for number in range(14)),
        "SELECT CONCAT(REPEAT('a', 80), 'b') REGEXP '(a|aa)+$'",
    ],
)
def test_a_runaway_query_is_cut_and_the_next_one_runs(pets, sql):
    start = time.perf_counter()
    assert "maximum statement execution time exceeded" in refusal(pets, sql)
    assert time.perf_counter() - start < 20.0  # the clock of a busy machine
    assert pets.run("SELECT COUNT(*) FROM pet") == [(4,)]


def test_rows_and_texts_are_capped(pets):
    assert len(pets.run("SELECT a.code FROM pet a, pet b, pet c, pet d")) == 100
    assert "Recursive query aborted after 1001 iterations" in refusal(pets, RUNAWAY + "SELECT i FROM n")
    assert pets.run("SELECT REPEAT('ab', 1000000000), LPAD('x', 1000000000, 'y')") == [(None, None)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM pet",
        "UPDATE pet SET weight = 0",
        "CREATE TABLE x (a INT)",
        "TRUNCATE pet",
        "REPLACE INTO pet VALUES (1)",
        "ATTACH ':memory:' AS x",
        "ATTACH DATABASE '/tmp/coevo_other.db' AS x",
        "PRAGMA query_only = OFF",
        "SELECT load_extension('x')",
        "SELECT LOAD_FILE('/etc/passwd')",
        "SELECT 1 INTO OUTFILE '/tmp/coevo_out'",
        "SELECT * FROM pet FOR UPDATE",
        "SELECT SLEEP(9)",
        "SELECT RAND()",
        "SELECT name FROM sqlite_master",
        "SELECT * FROM pragma_table_info('pet')",
        "SELECT randomblob(9)",
        "VACUUM",
        "WITH a AS (SELECT 1) DELETE FROM pet",
        "SELECT 1; DROP TABLE pet",
        "SELECT @@hostname",
    ],
)
def test_the_database_is_read_only(pets, sql):
    refusal(pets, sql)
    assert pets.run("SELECT COUNT(*), ROUND(SUM(weight), 1) FROM pet") == [(4, 27.9)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
        "(" * 100_000,
        "SELECT " + "1+" * 4_000 + "1",
        "SELECT '" + "a" * 100_000 + "'",
        "SELECT \x00\x01\xff",
        "SELECT '\ud800'",
        "SELECT ((1",
        "SELECT 1))",
        "SELECT 'abc",
        "SELECT `abc",
        "SELECT",
        ";",
        "-- nothing",
        "/* nothing */",
        "/*!50000 DROP TABLE pet */",
        "SELECT TIMESTAMPDIFF()",
        "SELECT SUM(DISTINCT) FROM pet",
        "SELECT COUNT()",
        "SELECT * FROM pet WHERE code IN ()",
        "SELECT " + "code, " * 5_000 + "code FROM pet",
        "SHOW nonsense",
        "DESC",
        "]]][[[",
    ],
)
def test_noise_is_an_observation_and_the_next_episode_is_unharmed(env, sql):
    task = env.tasks("train")[0]
    env.reset(task)
    start = time.perf_counter()
    result = env.step(f"execute[{sql}]")
    assert time.perf_counter() - start < 10.0
    assert result.observation.startswith("Error executing query: ") and not result.done
    assert len(result.observation) <= 350
    assert env.step("submit").reward == 0.0
    assert env.expert(task).reward == 1.0


SPIDER = os.environ.get("COEVO_SPIDER")


@pytest.mark.slow
@pytest.mark.skipif(SPIDER is None, reason="COEVO_SPIDER names no folder with InterCode's Spider files")
def test_all_gold_queries_of_the_real_data_score_one():
    env = make_intercode_sql(InterCodeSqlOptions(spider_path=SPIDER))
    sizes = {split: len(env.tasks(split)) for split in SPLITS}
    assert sizes == {"train": 621, "dev": 132, "test": 281}
    empty = 0
    for task in all_tasks(env):
        demonstration = env.expert(task)
        assert demonstration.reward == 1.0, task
        assert len(demonstration.turns) <= env.max_turns(task)
        empty += demonstration.turns[-2].observation == "[]"
    assert empty == 80
