"""InterCode-SQL: reward by hand, splits, experts, limits, read-only databases, task files, failures."""

import sqlite3
import threading
import time

import numpy as np
import pytest

from coevo_jax.envs.env import Env
from coevo_jax.envs.intercode_sql.environment import (
    INVALID_ACTION,
    is_submit,
    make_intercode_sql,
    parse_action,
)
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.reward import intercode_reward, kendall_tau
from coevo_jax.envs.intercode_sql.sqlite_sandbox import (
    ALLOWED_FUNCTIONS,
    Database,
    QueryLimits,
    Sandbox,
    SqlError,
)

SMALL = InterCodeSqlOptions(
    train_databases=6, dev_databases=2, test_databases=4, train_tasks=120, dev_tasks=20, test_tasks=40
)
LIMITS = QueryLimits(rows=5, instructions=1_000_000, seconds=2.0)
PETS = Database(
    name="pets",
    tables=("CREATE TABLE cat (id INT, name TEXT)", "CREATE TABLE ant (id INT, cat_id INT)"),
    rows=(("cat", ((1, "Tom"), (2, "Mia"), (3, "Leo"))), ("ant", tuple((i, 1) for i in range(40)))),
)


@pytest.fixture(scope="module")
def env():
    instance = make_intercode_sql(SMALL)
    yield instance
    instance.close()


@pytest.fixture
def pets():
    sandbox = Sandbox(PETS, LIMITS)
    yield sandbox
    sandbox.close()


def test_a_sandbox_that_nobody_closes_gives_its_memory_back():
    """Python 3.13 warns of every connection that is still open when it is collected."""
    sandbox = Sandbox(PETS, LIMITS)
    connection = sandbox._connection
    connection.execute("SELECT 1")
    del sandbox
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        connection.execute("SELECT 1")


def rows(text: str) -> list[tuple]:
    return [(letter,) for letter in text]


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("abc", "abc", 1.0),
        ("", "", 1.0),
        ("", "a", 0.0),
        ("a", "", 0.0),
        ("x", "y", 0.0),
        ("ab", "abcd", 0.5),  # shared rows in the same order: tau 1
        ("aab", "ab", 0.67),  # 2 of 3 rows, the second "a" is one too many
        ("aa", "aaa", 2 / 3),  # one different row: no tau, and no rounding
        ("a", "abc", 1 / 3),
        ("ba", "ab", 0.0),  # tau -1, clipped
        ("bac", "abc", 0.33),  # pairs (b,a), (a,b), (c,c): one discordant of three
        ("abdc", "abcd", 0.67),  # one discordant pair of six
        ("cabx", "abc", 0.0),  # (c,a), (a,b), (b,c): two discordant of three, tau -1/3
    ],
)
def test_reward_by_hand(answer, gold, expected):
    assert intercode_reward(rows(answer), rows(gold)) == pytest.approx(expected)


def test_reward_of_an_error_is_zero_and_types_count():
    assert intercode_reward(None, []) == 0.0
    assert intercode_reward(None, [(1,)]) == 0.0
    assert intercode_reward([("1",)], [(1,)]) == 0.0
    assert intercode_reward([(1.0,)], [(1,)]) == 0.0


def test_tau_agrees_with_scipy():
    from scipy.stats import kendalltau  # takes a second

    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y = rng.integers(0, 6, (2, int(rng.integers(1, 12))))
        ours = kendall_tau([str(v) for v in x], [str(v) for v in y])
        if len(x) < 2 or len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2:
            assert ours is None
        else:
            assert ours == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("action", "sql"),
    [
        ("execute[SELECT 1]", "SELECT 1"),
        (" Execute [ SELECT a\nFROM [b c] ] ", "SELECT a\nFROM [b c]"),
        ("```sql\nSELECT a\nFROM b\n```", "SELECT a\nFROM b"),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("execute[```sql\nSELECT 1\n```]", "SELECT 1"),
        ("SELECT 1", None),
        ("execute[SELECT 1", None),
        ("execute[SELECT 1];", "SELECT 1"),
        ("execute[SELECT a FROM [b c]] That lists them.", "SELECT a FROM [b c]"),
        ("please execute[SELECT 1]", None),
        ("execute[ ]", None),
        ("``````", None),
        ("", None),
    ],
)
def test_parse_action(action, sql):
    assert parse_action(action) == sql


def test_submit_is_one_word():
    assert is_submit(" Submit\n")
    assert not is_submit("submit now")


def test_protocol_and_limits(env):
    assert isinstance(env, Env)
    task = env.tasks("train")[0]
    assert env.max_turns(task) == 10
    env.reset(task)
    assert env.reward_at_limit() == 0.0


def test_an_expert_does_not_disturb_a_running_episode(env):
    task, other = env.tasks("train")[:2]
    env.reset(task)
    env.step(env.expert(task).turns[-2].action)
    env.expert(other)
    assert env.step("submit").reward == 1.0


def test_a_second_instance_is_cheap_and_independent():
    first = make_intercode_sql(SMALL)
    start = time.perf_counter()
    second = make_intercode_sql(SMALL)
    assert time.perf_counter() - start < 0.05
    task = first.tasks("dev")[0]
    first.reset(task)
    second.reset(task)
    first.step(first.expert(task).turns[-2].action)
    assert second.step("submit").reward == 0.0
    assert first.step("submit").reward == 1.0
    first.close()
    first.close()
    assert second.expert(task).reward == 1.0


def test_an_instance_moves_between_threads(env):
    task = env.tasks("train")[0]
    env.reset(task)
    results = []
    for action in (env.expert(task).turns[-2].action, "submit"):
        worker = threading.Thread(target=lambda a=action: results.append(env.step(a)))
        worker.start()
        worker.join()
    assert results[-1].reward == 1.0


def test_the_last_query_counts(env):
    task = env.tasks("train")[0]
    gold = env.expert(task).turns[-2].action
    endings = {"execute[SHOW TABLES]": 0.0, "execute[SELECT nothing]": 0.0, "what?": 1.0}
    for last, expected in endings.items():
        env.reset(task)
        env.step(gold)
        assert not env.step(last).done
        assert env.step("submit").reward == expected
    env.reset(task)
    assert env.step("submit").reward == 0.0
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("submit")


def test_observations_are_cut_and_the_reward_is_not():
    env = make_intercode_sql(SMALL.model_copy(update={"observation_chars": 30}))
    for task in env.tasks("train")[:40]:
        demonstration = env.expert(task)
        assert demonstration.reward == 1.0
        assert max(len(turn.observation) for turn in demonstration.turns) == 30


@pytest.mark.parametrize(
    "action",
    [
        "execute[" + "SELECT 1 + " * 10_000 + "1]",
        "execute[" + "(" * 100_000 + "]",
        "execute[SELECT '" + "a" * 100_000 + "']",
        "x" * 100_000,
        "execute[" * 12_000,
        "execute[\x00\x01\xff SELECT \x00]",
        "execute[SELECT '\ud800']",
        "execute[SELECT 1; SELECT 2]",
        "execute[-- nothing]",
        "execute[SELECT CAST(x'ff' AS TEXT), x'00ff', 9e999, -9223372036854775808, 'é', char(0)]",
        "execute[SELECT printf('%.*c', 1000000000, 'x')]",
        "execute[SELECT zeroblob(2000000000)]",
        "execute[SELECT '" + "a" * 9_000 + "' LIKE '" + "%a" * 99 + "b']",
        "execute[SELECT " + "replace(" * 50 + "'" + "a" * 5_000 + "'" + ", 'a', 'aa')" * 50 + "]",
        "execute[]]]]]",
        "```sql",
        "]execute[",
        "submit submit",
        "",
    ],
)
def test_noise_is_an_observation_and_fast(env, action):
    env.reset(env.tasks("train")[0])
    start = time.perf_counter()
    result = env.step(action)
    assert time.perf_counter() - start < 1.0
    assert isinstance(result.observation, str) and len(result.observation) <= 350
    assert not result.done
    if parse_action(action) is None:
        assert result.observation == INVALID_ACTION


RUNAWAY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"


@pytest.mark.parametrize(
    "query", ["SELECT COUNT(*) FROM ant a, ant b, ant c, ant d, ant e", RUNAWAY.format("max(i)")]
)
def test_a_runaway_query_is_cut_and_the_next_one_runs(pets, query):
    start = time.perf_counter()
    with pytest.raises(SqlError, match="query takes too long"):
        pets.run(query)
    assert time.perf_counter() - start < 2.0
    assert pets.run("SELECT COUNT(*) FROM cat") == [(3,)]


def test_a_slow_query_is_cut_by_the_clock():
    limits = QueryLimits(rows=5, instructions=10**12, seconds=0.2)
    sandbox = Sandbox(PETS, limits)
    start = time.perf_counter()
    with pytest.raises(SqlError, match="query takes too long"):
        sandbox.run(RUNAWAY.format("max(i)"))
    assert 0.1 < time.perf_counter() - start < 2.0


def test_rows_are_capped(pets):
    assert pets.run("SELECT id FROM ant") == [(0,), (1,), (2,), (3,), (4,)]
    assert pets.run(RUNAWAY.format("i")) == [(1,), (2,), (3,), (4,), (5,)]


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE cat",
        "DELETE FROM cat",
        "UPDATE cat SET name = 'x'",
        "INSERT INTO cat VALUES (9, 'x')",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "ATTACH ':memory:' AS other",
        "ATTACH '/tmp/coevo_other.db' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO '/tmp/coevo_copy.db'",
        "BEGIN",
        "SELECT load_extension('x')",
        "SELECT random()",
        "SELECT datetime('now')",
        "SELECT CURRENT_TIMESTAMP",
        "WITH n AS (SELECT 1) DELETE FROM cat",
    ],
)
def test_the_database_is_read_only(pets, query):
    with pytest.raises(SqlError):
        pets.run(query)
    assert pets.run("SELECT * FROM cat") == [(1, "Tom"), (2, "Mia"), (3, "Leo")]


def test_functions_are_allowed_by_name():
    """All that this SQLite has and that is not on the list is refused, with any number of arguments."""
    with sqlite3.connect(":memory:") as bare:
        found = bare.execute(
            "SELECT DISTINCT name FROM pragma_function_list WHERE name GLOB '[a-z]*'"
        ).fetchall()
    bare.close()
    box = Sandbox(Database(name="none", tables=("CREATE TABLE t (a int)",), rows=()), LIMITS)
    others = {name for (name,) in found} - ALLOWED_FUNCTIONS
    assert {"random", "sqlite_version", "sqlite_compileoption_get", "load_extension", "datetime"} <= others
    for name in sorted(others):
        for arguments in ("", "1", "1, 1", "1, 1, 1"):
            with pytest.raises(SqlError):
                box.run(f"SELECT {name}({arguments})")
    box.close()


def test_functions_of_both_dialects_answer(pets):
    answers = {
        "count(*)": 3,
        "sum(id)": 6,
        "group_concat(name)": "Tom,Mia,Leo",
        "upper(min(name))": "LEO",
        "round(avg(id), 1)": 2.0,
        "coalesce(nullif(1, 1), abs(-4))": 4,
        "length(replace(trim('  abc '), 'b', 'xx'))": 4,
        "substr('abcdef', 2, 3)": "bcd",
    }
    for call, answer in answers.items():
        assert pets.run(f"SELECT {call} FROM cat")[0] == (answer,)
    assert pets.run("SELECT name FROM cat WHERE name LIKE '%o%' AND name NOT LIKE 'T%'") == [("Leo",)]
    assert pets.run("SELECT row_number() OVER (ORDER BY id DESC) FROM cat LIMIT 1") == [(1,)]


def test_a_drop_does_not_reach_the_next_episode(env):
    task = env.tasks("train")[0]
    table = env.expert(task).turns[1].action.removeprefix("execute[DESC ").removesuffix("]")
    env.reset(task)
    for change in (f"DROP TABLE {table}", f"UPDATE {table} SET name = 'x'"):
        assert env.step(f"execute[{change}]").observation == "Error: not authorized"
    env.step("submit")
    assert env.expert(task).reward == 1.0


def test_mysql_speech(pets):
    assert pets.run("show  tables;") == [("ant",), ("cat",)]
    for query in ("DESC cat", "describe `CAT` ;"):
        assert pets.run(query) == [("id", "int"), ("name", "text")]
    with pytest.raises(SqlError, match="no such table: dog"):
        pets.run("DESC dog")
