"""Scripted players of generated SQL tasks: queries as records, decisions, names, errors, and their rates."""

import numpy as np
import pytest
from pydantic import ValidationError

from coevo_jax.config.streams import stream
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.intercode_sql.environment import make_intercode_sql, parse_action
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.players import (
    PLAYERS,
    SqlHabits,
    check_world,
    decide,
    guess_names,
    lesson,
    play,
    shown_columns,
    skills,
)
from coevo_jax.envs.intercode_sql.queries import Condition, read_query, rename, without_column
from coevo_jax.envs.players import play_tasks
from coevo_jax.trajectory import Turn

CUT = InterCodeSqlOptions(
    **{"train_databases": 10, "dev_databases": 1, "test_databases": 1, "dev_tasks": 5, "test_tasks": 5},
    **{"train_tasks": 600, "domains": 3, "observation_chars": 70},
)
DECISIONS = (
    *("drop_condition", "swap_connective", "open_between", "drop_not", "drop_order", "rising_order"),
    *("shift_bound", "drop_join_condition"),
)
HABITS = SqlHabits()
NO_HABITS = HABITS.model_copy(update=dict.fromkeys(DECISIONS, 0.0))
JOIN = "SELECT T1.name FROM ship AS T1 JOIN port AS T2 ON T1.port_id = T2.id"


@pytest.fixture(scope="module")
def env():
    instance = make_intercode_sql(CUT)
    yield instance
    instance.close()


@pytest.fixture(scope="module")
def golds(env):
    """The gold queries of all tasks, by their experts."""
    return [parse_action(env.expert(task).turns[-2].action) for task in env.tasks("train")]


@pytest.fixture(scope="module")
def episodes(env):
    """Episodes of all tasks: the task, and what was played."""
    return list(play_tasks(PLAYERS, env, "train", range(600), HABITS))


def read(sql):
    query = read_query(sql)
    assert query is not None
    return query


def test_a_gold_query_is_read_clause_by_clause():
    query = read(f"{JOIN} WHERE T2.age BETWEEN 15 AND 40 AND T2.city != 'Rome' ORDER BY T1.price DESC")
    assert query.columns == ("T1.name",) and query.joins
    assert query.conditions == (
        Condition(column="T2.age", operator="BETWEEN", values=("15", "40")),
        Condition(column="T2.city", operator="!=", values=("'Rome'",)),
    )
    assert (query.connective, query.group, query.order, query.falling) == ("AND", "", "T1.price", True)
    assert query.named() == ("T1.name", "T2.age", "T2.city", "T1.price")
    assert (query.table_of("T1.price"), query.table_of("T2.age")) == ("ship", "port")
    counted = read("SELECT town, MAX(age) FROM port WHERE cost < 30 GROUP BY town")
    assert counted.named() == ("town", "age", "cost") and counted.table_of("age") == "port"
    assert read("SELECT COUNT(*) FROM port").named() == ()


def test_every_generated_gold_query_is_written_again_as_it_stood(golds):
    assert [read(gold).sql for gold in golds] == golds


@pytest.mark.parametrize("sql", ["", "SHOW TABLES", "SELECT 1", "SELECT a FROM b WHERE c LIKE 'd'"])
def test_what_is_no_gold_query_of_the_generator_is_none(sql):
    assert read_query(sql) is None


def test_columns_are_renamed_and_left_out_with_their_prefix_and_nowhere_else():
    query = read(f"{JOIN} WHERE T2.age > 15 ORDER BY T1.age DESC")
    assert rename(query, "T2.age", "T2.years").sql == f"{JOIN} WHERE T2.years > 15 ORDER BY T1.age DESC"
    assert without_column(query, "T2.age").sql == f"{JOIN} ORDER BY T1.age DESC"
    assert without_column(query, "T1.age").sql == f"{JOIN} WHERE T2.age > 15"
    counted = read("SELECT age, MAX(price) FROM port WHERE city = 'age' GROUP BY age")
    assert rename(counted, "age", "years").sql == (
        "SELECT years, MAX(price) FROM port WHERE city = 'age' GROUP BY years"
    )
    around = "SELECT age, MAX(name) FROM port WHERE city = 'age' GROUP BY age"
    assert without_column(counted, "price").sql == around


@pytest.mark.parametrize(
    ("habit", "gold", "expected"),
    [
        ("drop_condition", "WHERE a = 'x' OR b < 30", "WHERE a = 'x'"),
        ("drop_condition", "WHERE a = 'x'", "WHERE a = 'x'"),
        ("swap_connective", "WHERE a = 'x' OR b < 30", "WHERE a = 'x' AND b < 30"),
        ("swap_connective", "WHERE a BETWEEN 5 AND 10", "WHERE a BETWEEN 5 AND 10"),
        ("open_between", "WHERE a BETWEEN 15 AND 40", "WHERE a > 15"),
        ("drop_not", "WHERE a != 'x'", ""),
        ("drop_order", "WHERE b < 30 ORDER BY b DESC", "WHERE b < 30"),
        ("rising_order", "ORDER BY b DESC", "ORDER BY b"),
        ("rising_order", "ORDER BY b", "ORDER BY b"),
        ("drop_join_condition", "WHERE b < 30", "WHERE b < 30"),
    ],
)
def test_a_habit_changes_its_clause_alone(habit, gold, expected):
    habits = NO_HABITS.model_copy(update={habit: 1.0})
    query = read(f"SELECT name FROM port {gold}")
    assert decide(query, habits, stream("test")).sql == f"SELECT name FROM port {expected}".strip()
    assert decide(query, NO_HABITS, stream("test")) == query


def test_conditions_of_a_join_are_left_out_and_bounds_move_by_five():
    query = read(f"{JOIN} WHERE T2.age < 30")
    dropped = NO_HABITS.model_copy(update={"drop_join_condition": 1.0})
    assert decide(query, dropped, stream("test")).sql == JOIN
    shifted = NO_HABITS.model_copy(update={"shift_bound": 1.0})
    found = {decide(query, shifted, stream("test", seed)).sql for seed in range(20)}
    assert found == {f"{JOIN} WHERE T2.age < 25", f"{JOIN} WHERE T2.age < 35"}


def test_decisions_go_wrong_at_their_rates(golds):
    queries = [read(gold) for gold in golds] * 5
    decided = [decide(query, HABITS, stream("test", place)) for place, query in enumerate(queries)]
    pairs = list(zip(queries, decided, strict=True))
    two = [(a, b) for a, b in pairs if len(a.conditions) == 2]
    cases = {
        "drop_condition": [len(b.conditions) == 1 for _, b in two],
        "swap_connective": [a.connective != b.connective for a, b in two if len(b.conditions) == 2],
        "open_between": [b.conditions[0].operator == ">" for a, b in pairs if "BETWEEN" in a.sql],
        "drop_not": [not b.conditions for a, b in pairs if "!=" in a.sql],
        "drop_order": [not b.order for a, b in pairs if a.order],
        "rising_order": [not b.falling for a, b in pairs if a.falling and b.order],
        "drop_join_condition": [not b.conditions for a, b in pairs if a.joins],
        "shift_bound": [
            a.conditions[0].values != b.conditions[0].values
            for a, b in pairs
            if len(a.conditions) == 1 == len(b.conditions) and a.conditions[0].operator in "<>"
        ],
    }
    assert set(cases) == set(DECISIONS)
    for name, found in cases.items():
        assert near(np.mean(found), getattr(HABITS, name), len(found)), (name, np.mean(found), len(found))


def near(share, rate, count):
    """Within four standard deviations of a share of `count` draws."""
    return count > 50 and abs(share - rate) < 4 * (rate * (1 - rate) / count) ** 0.5


def test_only_names_that_a_schema_hides_are_guessed():
    looks = [
        Turn(response="", action="execute[SHOW TABLES]", observation="[('port',), ('ship',)]"),
        Turn(response="", action="execute[DESC ship]", observation="[('id', 'int'), ('years', 'int'), ('pri"),
        Turn(response="", action="execute[DESC port]", observation="[('id', 'int'), ('price', 'int'), ('ma"),
    ]
    shown = shown_columns(looks)
    assert shown == {"ship": {"id", "years"}, "port": {"id", "price"}}
    gold = read(f"{JOIN} WHERE T2.years > 15 AND T2.price < 30 ORDER BY T1.years")
    sure = HABITS.model_copy(update={"guess_word": 1.0})
    names = {"T1.name": "T1.name", "T2.price": "T2.price", "T1.years": "T1.years"}
    assert guess_names(gold, shown, sure, stream("test")) == names | {"T2.years": "T2.age"}
    other = HABITS.model_copy(update={"guess_word": 0.0})
    assert guess_names(gold, shown, other, stream("test")) == names | {"T2.years": "T2.years"}


def test_players_depend_on_their_seed_and_a_tasks_place_alone(env, episodes):
    again = list(play_tasks(PLAYERS, env, "train", range(40, 50), HABITS))
    assert again == episodes[40:50]
    other = HABITS.model_copy(update={"seed": 1})
    assert list(play_tasks(PLAYERS, env, "train", range(40, 50), other)) != again


def test_what_was_played_comes_back_when_it_is_played_again(env, episodes):
    for task, episode in episodes:
        assert env.reset(task) == episode.prompt and episode.task_id == task.id
        results = [env.step(turn.action) for turn in episode.turns]
        assert [result.observation for result in results] == [turn.observation for turn in episode.turns]
        assert [result.done for result in results] == [False] * (len(results) - 1) + [True]
        assert results[-1].reward == episode.reward
        assert len(episode.turns) <= env.max_turns(task)


def test_errors_are_met_and_handled_at_the_rates(episodes):
    manners = {"retry": 0, "around": 0, "repeat": 0, "gave_up": 0}
    for _, episode in episodes:
        actions = [turn.action for turn in episode.turns]
        errors = [i for i, turn in enumerate(episode.turns) if turn.observation.startswith("Error")]
        if not errors:
            continue
        error = errors[0]
        asked, following = parse_action(actions[error]), parse_action(actions[error + 1])
        if following is None:
            manners["gave_up"] += 1
        elif following == asked:
            manners["repeat"] += 1
        else:
            bad = episode.turns[error].observation.split(": ")[-1]
            manners["around" if read(following) == without_column(read(asked), bad) else "retry"] += 1
    met = sum(manners.values())
    rest = 1 - HABITS.retry - HABITS.around - HABITS.repeat
    rates = {"retry": HABITS.retry, "around": HABITS.around, "repeat": HABITS.repeat, "gave_up": rest}
    for name, rate in rates.items():
        assert near(manners[name] / met, rate, met), (manners, met)


def test_who_retries_and_decides_rightly_always_solves_the_task(env):
    sure = NO_HABITS.model_copy(update={"retry": 1.0, "around": 0.0, "repeat": 0.0})
    played = [one for _, one in play_tasks(PLAYERS, env, "train", range(200), sure)]
    assert {one.reward for one in played if len(one.turns) < CUT.max_turns} == {1.0}
    assert any("Error" in turn.observation for one in played for turn in one.turns)


def test_who_checks_ends_with_the_right_query(env):
    update = dict.fromkeys(DECISIONS, 1.0) | {"retry": 1.0, "around": 0.0, "repeat": 0.0, "check": 1.0}
    checks = HABITS.model_copy(update=update | {"careful": 0.0})
    never = checks.model_copy(update={"check": 0.0})
    checked = [one.reward for _, one in play_tasks(PLAYERS, env, "train", range(100), checks)]
    unchecked = [one.reward for _, one in play_tasks(PLAYERS, env, "train", range(100), never)]
    assert min(checked) == 1.0 and np.mean(unchecked) < 0.8


def test_careful_players_are_a_share_of_all(env, golds):
    wrong = HABITS.model_copy(update=dict.fromkeys(DECISIONS, 1.0) | {"careful": 0.3})
    task = next(t for t, gold in zip(env.tasks("train"), golds, strict=True) if "ORDER BY" in gold)
    played = [play(env, task, wrong, stream("test", place)) for place in range(400)]
    first = [next(turn.action for turn in one.turns if "SELECT" in turn.action) for one in played]
    assert near(np.mean(["ORDER BY" in action for action in first]), 0.3, 400)


def test_skills_tell_whether_the_first_query_has_the_questions_values():
    def shown(*actions):
        prompt = "Database sea_1. Question: List the name of ships with city Rome or age between 15 and 40."
        return skills(prompt, [Turn(response="", action=action, observation="") for action in actions])

    look = "execute[DESC ship]"
    right = "execute[SELECT name FROM ship WHERE city = 'Rome' OR age BETWEEN 15 AND 40]"
    assert shown(look, right, "submit") == {"copied": True}
    assert shown(look, "execute[SELECT name FROM ship WHERE city = 'Oslo']", right) == {"copied": False}
    assert shown("execute[SELECT name FROM ship WHERE age > 20]") == {"copied": False}
    assert shown("execute[SELECT name FROM ship]") == shown(look, "submit") == {}


def test_a_base_learns_as_the_players_play_over_other_databases():
    taught = lesson(CUT, HABITS, 1001, 4000)
    assert (taught.options.seed, taught.options.train_tasks, taught.options.train_databases) == (
        1001,
        4000,
        66,
    )
    assert (taught.options.observation_chars, taught.habits, taught.episodes) == (70, HABITS, 4000)
    assert lesson(CUT, HABITS, 1001, 400).options.train_databases == CUT.train_databases  # it is no fewer


def test_tasks_that_no_player_can_play_are_refused(tmp_path):
    check_world(CUT)
    with pytest.raises(ConfigError, match="found tasks_path or spider_path"):
        check_world(InterCodeSqlOptions(tasks_path=str(tmp_path)))
    with pytest.raises(ConfigError, match="found max_turns 5, expected at least 6"):
        check_world(InterCodeSqlOptions(max_turns=5))
    with pytest.raises(ValidationError, match="at most 1 together"):
        SqlHabits(retry=0.6, around=0.5)
