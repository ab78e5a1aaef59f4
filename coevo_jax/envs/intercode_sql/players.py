"""Scripted imperfect players of generated SQL tasks: the structure right, decisions wrong at stated rates.

They stand in for what a pretrained model knows before it is trained on experts. A player reads the tables and
schemas that the task needs and asks a query of the right form, in which each decision goes wrong at a rate of
its own. What a cut schema hides it guesses; where the guess is an error, it tries the other name, leaves the
column out, asks the same again, or gives up.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import StepResult, Task
from coevo_jax.envs.intercode_sql.environment import InterCodeSqlEnv, parse_action
from coevo_jax.envs.intercode_sql.lexicon import INTEGER_CONCEPTS, TEXT_CONCEPTS
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.queries import Query, read_query, rename, without_column
from coevo_jax.envs.players import Act, Lesson, PlayerHabits, Players, acting
from coevo_jax.trajectory import Demonstration, Turn

LEAST_TURNS = 6  # two schemas, a query that fails, one that does not, and `submit`, after SHOW TABLES
TASKS_PER_DATABASE = 60
BOUND_STEP = 5  # the bounds of questions are multiples of it
CONCEPTS = (*TEXT_CONCEPTS, *INTEGER_CONCEPTS)
OTHER_NAME = {name: other for pair in CONCEPTS for name, other in (pair, pair[::-1])}
WORD = {name: pair[0] for pair in CONCEPTS for name in pair}
DESCRIBED = re.compile(r"\('(\w+)', '")  # a name that a schema shows whole
VALUE = re.compile(r"'([^']*)'|\b(\d+)\b")
NO_COLUMN = re.compile(r"no such column: ([\w.]+)")


class SqlHabits(PlayerHabits):
    """How often a scripted player of SQL tasks does what. All rates are chosen, none is measured."""

    seed: int = Field(0, ge=0)
    """Seed of the players' draws, apart from that of the databases and questions."""
    careful: float = Field(0.3, ge=0, le=1)
    """Share of the players who decide everything rightly; names that they cannot see they guess, too."""
    drop_condition: float = Field(0.25, ge=0, le=1)
    """Of two conditions, the second is left out."""
    swap_connective: float = Field(0.05, ge=0, le=1)
    """AND becomes OR and OR becomes AND, where both conditions are kept."""
    open_between: float = Field(0.25, ge=0, le=1)
    """BETWEEN loses its upper bound and becomes >."""
    drop_not: float = Field(0.2, ge=0, le=1)
    """A condition != is left out."""
    drop_order: float = Field(0.25, ge=0, le=1)
    """ORDER BY is left out."""
    rising_order: float = Field(0.15, ge=0, le=1)
    """DESC is left out, where ORDER BY is kept."""
    shift_bound: float = Field(0.05, ge=0, le=1)
    """The bound of < or > is moved by 5, up or down."""
    drop_join_condition: float = Field(0.2, ge=0, le=1)
    """The conditions of a query that joins two tables are left out."""
    guess_word: float = Field(0.8, ge=0, le=1)
    """A column that the schema does not show is guessed to have the question's word as its name; else the
    synonym is guessed."""
    retry: float = Field(0.4, ge=0, le=1)
    """After an error: the other name is tried, and so on until the query runs."""
    around: float = Field(0.25, ge=0, le=1)
    """After an error: the query is asked without the column, its conditions and orders left out."""
    repeat: float = Field(0.03, ge=0, le=1)
    """After an error: the same query is asked again, then submitted. What is left of 1 submits at once."""
    check: float = Field(0.15, ge=0, le=1)
    """A query that ran is checked against the question; where a decision was wrong, it is asked anew without
    a wrong one before submitting."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (total := self.retry + self.around + self.repeat) > 1:
            raise ValueError(f"retry, around and repeat of at most 1 together (they are {total:g})")
        return self


def lesson(options: InterCodeSqlOptions, habits: SqlHabits, seed: int, episodes: int) -> Lesson:
    """What a stand-in learns from: players with the habits, over databases of another seed."""
    databases = max(options.train_databases, episodes // TASKS_PER_DATABASE)
    room = {"seed": seed, "train_tasks": episodes, "train_databases": databases}
    return Lesson(options=options.model_copy(update=room), habits=habits, episodes=episodes)


def check_world(options: InterCodeSqlOptions) -> None:
    """Refuse tasks that the players cannot play.

    Raises:
      ConfigError: the tasks are not generated, or an episode is too short.
    """
    if options.tasks_path is not None or options.spider_path is not None:
        raise ConfigError("players: found tasks_path or spider_path, expected only options of the generator")
    if options.max_turns < LEAST_TURNS:
        raise ConfigError(f"players: found max_turns {options.max_turns}, expected at least {LEAST_TURNS}")


def play(env: InterCodeSqlEnv, task: Task, habits: SqlHabits, rng: np.random.Generator) -> Demonstration:
    """An episode of one player, played in the environment from its reset to `submit`."""
    *looks, last, _ = env.expert(task).turns
    gold = read_query(parse_action(last.action) or "")
    assert gold is not None  # `check_world` refused tasks that are not generated
    prompt, turns = env.reset(task), []
    act = acting(env, turns)
    for look in looks:
        act(look.action)
    careful = rng.random() < habits.careful
    names = guess_names(gold, shown_columns(turns), habits, rng)
    decided = gold if careful else decide(gold, habits, rng)
    left = env.max_turns(task) - 1 - len(turns)
    found = _ask(act, decided, names, habits, rng, left)
    if found is not None and decided != gold and rng.random() < habits.check:
        while len(turns) < env.max_turns(task) - 1:  # a name that was not asked for before may be wrong, too
            missing = _missing(act(f"execute[{_with_names(gold, found).sql}]"))
            if missing is None:
                break
            found = _other_name(found, missing)
    reward = act("submit").reward
    return Demonstration(task_id=task.id, prompt=prompt, turns=tuple(turns), reward=reward)


def decide(gold: Query, habits: SqlHabits, rng: np.random.Generator) -> Query:
    """The gold query with each decision wrong at its rate."""

    def falls(rate: float) -> bool:
        return rng.random() < rate

    query, conditions = gold, gold.conditions
    if len(conditions) == 2:
        if falls(habits.drop_condition):
            query = replace(query, conditions=conditions[:1])
        elif falls(habits.swap_connective):
            query = replace(query, connective="OR" if query.connective == "AND" else "AND")
    kept = []
    for one in query.conditions:
        if one.operator == "BETWEEN" and falls(habits.open_between):
            one = replace(one, operator=">", values=one.values[:1])
        elif one.operator in ("<", ">") and falls(habits.shift_bound):
            one = replace(one, values=(str(int(one.values[0]) + BOUND_STEP * (1 if falls(0.5) else -1)),))
        if one.operator != "!=" or not falls(habits.drop_not):
            kept.append(one)
    query = replace(query, conditions=tuple(kept))
    if query.joins and falls(habits.drop_join_condition):
        query = replace(query, conditions=())
    if query.order and falls(habits.drop_order):
        query = replace(query, order="", falling=False)
    elif query.falling and falls(habits.rising_order):
        query = replace(query, falling=False)
    return query


def shown_columns(turns: Sequence[Turn]) -> dict[str, set[str]]:
    """The names that the schema of each described table shows whole."""
    schemas = [(parse_action(turn.action) or "", turn.observation) for turn in turns]
    return {sql.split()[1]: set(DESCRIBED.findall(seen)) for sql, seen in schemas if sql.startswith("DESC ")}


def guess_names(
    gold: Query, shown: dict[str, set[str]], habits: SqlHabits, rng: np.random.Generator
) -> dict[str, str]:
    """The name that a player uses for each column of the gold query: what a schema shows, else a guess."""
    names = {}
    for column in gold.named():
        prefix, dot, name = column.rpartition(".")
        names[column] = column
        if name in OTHER_NAME and name not in shown.get(gold.table_of(column), ()):
            word = WORD[name]
            names[column] = f"{prefix}{dot}{word if rng.random() < habits.guess_word else OTHER_NAME[word]}"
    return names


def skills(prompt: str, turns: Sequence[Turn]) -> dict[str, bool]:
    """What an episode shows of the skills that come before deciding, each left out where it does not show.

    `copied`: the values of the conditions in the first query all stand in the question.
    """
    first = next(
        (sql for turn in turns if (sql := parse_action(turn.action) or "").startswith("SELECT ")), ""
    )
    values = VALUE.findall(first.partition(" WHERE ")[2])
    words = set(re.findall(r"\w+", prompt.partition("Question: ")[2]))
    return {"copied": {text or number for text, number in values} <= words} if values else {}


def _ask(
    act: Act,
    decided: Query,
    names: dict[str, str],
    habits: SqlHabits,
    rng: np.random.Generator,
    turns: int,
) -> dict[str, str] | None:
    """Ask the query, and handle errors in one manner; returns the names under which it ran whole, or None."""
    query = _with_names(decided, names)
    missing = _missing(act(f"execute[{query.sql}]"))
    if missing is None:
        return names
    rates = [habits.retry, habits.around, habits.repeat]
    manner = rng.choice(4, p=[*rates, max(0.0, 1 - sum(rates))])
    whole = manner == 0
    for _ in range(turns - 1):
        if missing is None or manner == 3:
            break
        if manner == 0:
            names = _other_name(names, missing)
            query = _with_names(decided, names)
        elif manner == 1:
            query = without_column(query, missing)
        missing = _missing(act(f"execute[{query.sql}]"))
        if manner == 2:
            break
    return names if whole and missing is None else None


def _with_names(query: Query, names: dict[str, str]) -> Query:
    for column in query.named():
        query = rename(query, column, names[column])
    return query


def _missing(result: StepResult) -> str | None:
    found = NO_COLUMN.search(result.observation)
    return found[1] if found else None


def _other_name(names: dict[str, str], missing: str) -> dict[str, str]:
    """The names after an error: the column that goes by the missing name takes the other one."""
    prefix, dot, name = missing.rpartition(".")
    other = f"{prefix}{dot}{OTHER_NAME[name]}"
    return {column: other if used == missing else used for column, used in names.items()}


PLAYERS = Players(
    habits=SqlHabits,
    stream="sql players",
    check=check_world,
    lesson=lesson,
    play=play,
    skills=skills,
    skill_words={"copied": "first query has the question's values"},
)
