"""InterCode-SQL's generated tasks: splits, forms, experts, answers that grade, task files."""

import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS, format_response
from coevo_jax.envs.intercode_sql.environment import InterCodeSqlEnv, make_intercode_sql
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.questions import FORMS, UNSEEN_FORMS
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits
from coevo_jax.envs.intercode_sql.task_file import read_tasks, write_tasks
from coevo_jax.envs.intercode_sql.tasks import UNSEEN_FORM_PREFIX, generate_tasks, query_limits

SMALL = InterCodeSqlOptions(
    train_databases=6, dev_databases=2, test_databases=4, train_tasks=120, dev_tasks=20, test_tasks=40
)

LIMITS = QueryLimits(rows=5, instructions=1_000_000, seconds=2.0)


@pytest.fixture(scope="module")
def env():
    instance = make_intercode_sql(SMALL)
    yield instance
    instance.close()


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
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
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
