"""InterCode-SQL: reward by hand, splits, experts, limits, read-only databases, task files, failures."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scipy.stats import kendalltau

from coevo_jax.config import ConfigError
from coevo_jax.envs.env import SPLITS, Env, format_response
from coevo_jax.envs.intercode_sql import (
    InterCodeSqlEnv,
    InterCodeSqlOptions,
    intercode_reward,
    make_intercode_sql,
    read_tasks,
    write_tasks,
)
from coevo_jax.envs.intercode_sql.environment import INVALID_ACTION, is_submit, parse_action
from coevo_jax.envs.intercode_sql.questions import FORMS, UNSEEN_FORMS
from coevo_jax.envs.intercode_sql.reward import kendall_tau
from coevo_jax.envs.intercode_sql.sandbox import Database, QueryLimits, Sandbox, SqlError
from coevo_jax.envs.intercode_sql.tasks import UNSEEN_FORM_PREFIX, generate_tasks, query_limits

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
        ("execute[SELECT 1] please", None),
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


def test_every_default_expert_scores_one_and_agrees_with_a_play():
    played = make_intercode_sql(InterCodeSqlOptions())
    experts = make_intercode_sql(InterCodeSqlOptions())
    for split in SPLITS:
        for task in played.tasks(split)[::7]:
            demonstration = experts.expert(task)
            assert demonstration.reward == 1.0
            assert played.reset(task) == demonstration.prompt
            for turn in demonstration.turns:
                result = played.step(turn.action)
                assert turn.response == format_response("", turn.action)
                assert result.observation == turn.observation
            assert result.done and result.reward == 1.0
            assert len(demonstration.turns) <= played.max_turns(task)


def test_an_expert_does_not_disturb_a_running_episode(env):
    task, other = env.tasks("train")[:2]
    env.reset(task)
    env.step(env.expert(task).turns[-2].action)
    env.expert(other)
    assert env.step("submit").reward == 1.0


def test_default_sizes_splits_and_forms():
    tasks = generate_tasks(InterCodeSqlOptions())
    assert {split: len(tasks.splits[split]) for split in SPLITS} == {"train": 2400, "dev": 200, "test": 400}
    databases = {split: {task.id.split("/")[0] for task in tasks.splits[split]} for split in SPLITS}
    assert {split: len(names) for split, names in databases.items()} == {"train": 40, "dev": 6, "test": 10}
    ids = [task.id for split in SPLITS for task in tasks.splits[split]]
    assert len(set(ids)) == 3000
    assert not databases["train"] & databases["dev"]
    assert not (databases["train"] | databases["dev"]) & databases["test"]
    data = [{tasks.databases[name].rows for name in databases[split]} for split in SPLITS]
    assert len(set.union(*data)) == 56  # no database stands twice under two names
    themes = {split: {name.split("_")[0] for name in names} for split, names in databases.items()}
    assert themes["test"] <= themes["train"] and themes["dev"] <= themes["train"]


def test_unseen_forms_stand_in_test_only():
    tasks = generate_tasks(InterCodeSqlOptions())
    families = {split: [task.family for task in tasks.splits[split]] for split in SPLITS}
    assert set(families["train"]) == set(FORMS)
    assert set(families["dev"]) <= set(FORMS)
    unseen = [name for name in families["test"] if name.startswith(UNSEEN_FORM_PREFIX)]
    assert set(unseen) == {UNSEEN_FORM_PREFIX + name for name in UNSEEN_FORMS}
    assert len(unseen) == 120
    train_gold = [tasks.tasks[task.id].gold for task in tasks.splits["train"]]
    for words in (r" AND .* ORDER BY ", r"JOIN .* ORDER BY ", r"WHERE .* GROUP BY ", r", .* BETWEEN "):
        assert not any(re.search(words, gold) for gold in train_gold), words


def test_answers_are_many_rows_and_never_empty():
    tasks = generate_tasks(InterCodeSqlOptions())
    env = make_intercode_sql(InterCodeSqlOptions())
    sizes = [len(env._sandbox(one.task).run(one.gold)) for one in tasks.tasks.values()]
    assert min(sizes) >= 1 and max(sizes) <= 40
    assert np.mean(np.array(sizes) >= 5) > 0.8


def test_a_question_has_one_answer_within_its_database():
    tasks = generate_tasks(InterCodeSqlOptions())
    asked = [(one.database, one.question) for one in tasks.tasks.values()]
    assert len(set(asked)) == len(asked)


def test_the_schema_must_be_looked_at():
    """A column's name cannot be told from the question: the same word stands under either name."""
    tasks = generate_tasks(InterCodeSqlOptions())
    named = [
        one for one in tasks.tasks.values() if one.task.family == "filter" and " country " in one.question
    ]
    shares = np.mean([bool(re.search(r"\bcountry\b", one.gold)) for one in named])
    assert 0.25 < shares < 0.75


def test_domains_and_synonyms_set_how_much_there_is_to_learn():
    plain = generate_tasks(SMALL.model_copy(update={"domains": 2, "synonym_share": 0.0}))
    other = generate_tasks(SMALL.model_copy(update={"domains": 2, "synonym_share": 1.0}))
    assert {name.split("_")[0] for name in plain.databases} == {"music", "school"}
    columns = re.compile(r"\b(country|age|score|singer|teacher)\b")
    synonyms = re.compile(r"\b(nation|years|points|artist|tutor)\b")
    plain_schema, other_schema = (str([d.tables for d in t.databases.values()]) for t in (plain, other))
    assert columns.search(plain_schema) and not synonyms.search(plain_schema)
    assert synonyms.search(other_schema) and not columns.search(other_schema)


def test_more_train_tasks_leave_the_test_split_alone():
    more = SMALL.model_copy(update={"train_databases": 8, "train_tasks": 200})
    one, other = generate_tasks(SMALL), generate_tasks(more)
    assert one.splits["test"] == other.splits["test"]
    assert one.tasks[one.splits["test"][0].id] == other.tasks[one.splits["test"][0].id]
    assert generate_tasks(SMALL.model_copy(update={"seed": 1})).tasks != one.tasks


DIGEST = """
import hashlib
from coevo_jax.envs.intercode_sql import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.tasks import generate_tasks
tasks = generate_tasks(InterCodeSqlOptions.model_validate_json({options!r}))
text = repr([*tasks.databases.values(), *tasks.tasks.values(), *tasks.splits.values()])
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_tasks_are_the_same_in_every_process():
    code = DIGEST.format(options=SMALL.model_dump_json())
    tasks = generate_tasks(SMALL)
    text = repr([*tasks.databases.values(), *tasks.tasks.values(), *tasks.splits.values()])
    digests = {hashlib.sha256(text.encode()).hexdigest()}
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_too_many_tasks_for_a_database_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("coevo_jax.envs.intercode_sql.tasks.DRAWS_PER_TASK", 1)
    options = InterCodeSqlOptions(train_databases=1, train_tasks=3000, dev_tasks=0, test_tasks=0)
    with pytest.raises(
        ConfigError, match=r"train_tasks: found 3000 for one database, .* raise train_databases"
    ):
        generate_tasks(options)


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
    if not action.lower().startswith("execute[") or not action.endswith("]"):
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


def corrupt_threshold(gold: str) -> str:
    return re.sub(
        r"([<>]) (\d+)", lambda m: f"{m[1]} {int(m[2]) + (15 if int(m[2]) < 55 else -15)}", gold, count=1
    )


def drop_filter(gold: str) -> str:
    if " AND " in gold and " BETWEEN " not in gold:
        return re.sub(r" AND .*?(?= ORDER| GROUP|$)", "", gold)
    return re.sub(r" WHERE .*?(?= ORDER| GROUP|$)", "", gold)


def flip_order(gold: str) -> str:
    return (
        gold.removesuffix(" DESC") if gold.endswith(" DESC") else re.sub(r"(ORDER BY .*)", r"\1 DESC", gold)
    )


def corrupted_rewards(env: InterCodeSqlEnv, corrupt) -> np.ndarray:
    """Rewards of the dev and train golds that a corruption changes."""
    found = []
    for split in ("train", "dev"):
        for task in env.tasks(split):
            gold = env._task_set.tasks[task.id].gold
            if (wrong := corrupt(gold)) != gold:
                env.reset(task)
                env.step(f"execute[{wrong}]")
                found.append(env.step("submit").reward)
    return np.array(found)


@pytest.mark.parametrize(
    ("corrupt", "graded"),
    [(corrupt_threshold, 0.7), (drop_filter, 0.7), (flip_order, 0.2)],
)
def test_systematic_failures_are_graded(corrupt, graded):
    rewards = corrupted_rewards(make_intercode_sql(InterCodeSqlOptions()), corrupt)
    assert len(rewards) >= 100
    assert np.mean((rewards > 0.05) & (rewards < 0.95)) > graded
    assert np.mean(rewards == 1.0) < 0.3


def test_a_task_file_reads_back_to_the_same_set(tmp_path):
    path = tmp_path / "tasks.jsonl"
    tasks = generate_tasks(SMALL)
    write_tasks(path, tasks)
    back = read_tasks(path, query_limits(SMALL))
    assert dict(back.databases) == dict(tasks.databases)
    assert dict(back.tasks) == dict(tasks.tasks)
    assert dict(back.splits) == dict(tasks.splits)
    env = make_intercode_sql(InterCodeSqlOptions(tasks_path=str(path)))
    assert env.expert(env.tasks("test")[0]).reward == 1.0
    assert list(tmp_path.iterdir()) == [path]


GOOD_DATABASE = {"database": "pets", "tables": ["CREATE TABLE cat (id INT)"], "rows": [["cat", [[1], [2]]]]}
GOOD_TASK = {
    "id": "pets/0",
    "split": "train",
    "db": "pets",
    "question": "List the id of cats.",
    "gold": "SELECT id FROM cat",
    "family": "list",
}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"tasks.jsonl:2: found '\{not json', expected a JSON object"),
        ("[1]", r"tasks.jsonl:2: found '\[1\]', expected a JSON object"),
        ("", r"tasks.jsonl:2: found '', expected a JSON object"),
        ({**GOOD_TASK, "split": "tran"}, r"tasks.jsonl:2: split: found \"tran\".*did you mean 'train'"),
        ({**GOOD_TASK, "glod": "x"}, r"tasks.jsonl:2: glod: unknown key \(did you mean 'gold'\?\)"),
        ({k: v for k, v in GOOD_TASK.items() if k != "gold"}, r"tasks.jsonl:2: gold: missing"),
        ({**GOOD_TASK, "id": 3}, r"tasks.jsonl:2: id: found 3 \(integer\), expected a string"),
        ({**GOOD_TASK, "db": "pet"}, r"tasks.jsonl:2: db: found 'pet'.*did you mean 'pets'"),
        ({**GOOD_TASK, "gold": "SELECT x FROM cat"}, r"tasks.jsonl:2: gold: .*no such column: x"),
        (
            {**GOOD_TASK, "gold": "SELECT 1 FROM cat a, cat b, cat c"},
            r"tasks.jsonl:2: gold: found 5 or more rows",
        ),
        (GOOD_DATABASE, r"tasks.jsonl:2: database: found 'pets' a second time"),
        ({**GOOD_DATABASE, "database": "b", "rows": [["cat", [[1, 2]]]]}, r"tasks.jsonl:2: .*SQLite refuses"),
        ({**GOOD_DATABASE, "database": "b", "rows": [["cat", [[[1]]]]]}, r"tasks.jsonl:2: rows\[0\]"),
        ({**GOOD_DATABASE, "database": "b", "tables": ["ATTACH 'x' AS y"]}, r"expected a CREATE TABLE"),
    ],
)
def test_a_broken_row_of_a_task_file_is_one_clear_error(tmp_path, line, message):
    path = tmp_path / "tasks.jsonl"
    broken = line if isinstance(line, str) else json.dumps(line)
    path.write_text("\n".join([json.dumps(GOOD_DATABASE), broken, json.dumps(GOOD_TASK)]) + "\n")
    with pytest.raises(ConfigError, match=message):
        read_tasks(path, LIMITS)
    path.write_text("\n".join([json.dumps(GOOD_DATABASE), json.dumps(GOOD_TASK)]) + "\n")
    assert len(read_tasks(path, LIMITS).tasks) == 1


def test_a_task_named_twice_or_no_task_at_all(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in (GOOD_DATABASE, GOOD_TASK, GOOD_TASK)))
    with pytest.raises(ConfigError, match=r"tasks.jsonl:3: id: found 'pets/0' a second time"):
        read_tasks(path, LIMITS)
    path.write_text(json.dumps(GOOD_DATABASE))
    with pytest.raises(ConfigError, match="found no task"):
        read_tasks(path, LIMITS)
    with pytest.raises(ConfigError, match="no readable text"):
        read_tasks(tmp_path / "missing.jsonl", LIMITS)
