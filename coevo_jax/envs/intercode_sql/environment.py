"""The InterCode-SQL environment: explore a database with SQL, then submit the last result."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.envs.env import StepResult, Task, format_response
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.reward import intercode_reward
from coevo_jax.envs.intercode_sql.sandbox import QueryLimits, Sandbox, SqlError
from coevo_jax.envs.intercode_sql.task_file import read_tasks
from coevo_jax.envs.intercode_sql.tasks import TaskSet, generate_tasks, query_limits
from coevo_jax.trajectory import Demonstration, Turn

INVALID_ACTION = "Invalid action: expected execute[SQL] or submit."
EXECUTE = re.compile(r"execute\s*\[(.*)\]", re.IGNORECASE | re.DOTALL)
FENCE = re.compile(r"```(?:sql\b)?(.*)```", re.IGNORECASE | re.DOTALL)


def parse_action(action: str) -> str | None:
    """The SQL of an action, which may span lines and stand in a fence; None where the action holds none."""
    text = action.strip()
    if found := EXECUTE.fullmatch(text):
        text = found[1].strip()
        fenced = FENCE.fullmatch(text)
        return (fenced[1].strip() if fenced else text) or None
    fenced = FENCE.fullmatch(text)
    return (fenced[1].strip() or None) if fenced else None


def is_submit(action: str) -> bool:
    """Whether an action ends the episode."""
    return action.strip().lower() == "submit"


class InterCodeSqlEnv:
    """One instance: its own in-memory databases, opened when first needed; tasks are shared.

    Source of the rules: InterCode (arXiv 2306.14898); turn limit, reward 0 at the limit and the cut of
    observations: IPR (arXiv 2406.11176).
    """

    name = "intercode_sql"
    system_prompt = "Answer by execute[SQL], then submit."
    deterministic = True

    def __init__(self, options: InterCodeSqlOptions, task_set: TaskSet):
        self._options = options
        self._task_set = task_set
        self._sandboxes: dict[str, Sandbox] = {}
        self._task: Task | None = None
        self._answer: list[tuple] | None = None  # rows of the last query; None before one, and after an error

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in a fixed, already shuffled order."""
        return self._task_set.splits[split]

    def max_turns(self, task: Task) -> int:
        """Number of turns after which the episode is cut."""
        return self._options.max_turns

    def reset(self, task: Task) -> str:
        """Start an episode; returns database and question."""
        self._task, self._answer = task, None
        return self._prompt(task)

    def step(self, action: str) -> StepResult:
        """Run a query, or submit the last result for its reward. Raises RuntimeError outside an episode."""
        if self._task is None:
            raise RuntimeError("step outside an episode: call reset first")
        if is_submit(action):
            reward = self._reward(self._task, self._answer)
            self._task = None
            return StepResult(observation="Submitted.", done=True, reward=reward)
        sql = parse_action(action)
        if sql is None:
            return StepResult(observation=INVALID_ACTION, done=False, reward=0.0)
        observation, self._answer = self._execute(self._task, sql)
        return StepResult(observation=observation, done=False, reward=0.0)

    def reward_at_limit(self) -> float:
        """An episode that is cut before `submit` earns 0."""
        return 0.0

    def expert(self, task: Task) -> Demonstration:
        """Show the tables, describe those of the gold query, run it, submit; a running episode goes on."""
        gold = self._task_set.tasks[task.id].gold
        sandbox = self._sandbox(task)
        words = [word.lower() for word in re.findall(r"\w+", gold)]
        used = [table for table in sandbox.tables if table.lower() in words]
        used.sort(key=lambda table: words.index(table.lower()))
        turns, answer = [], None
        for sql in ("SHOW TABLES", *(f"DESC {table}" for table in used), gold):
            observation, answer = self._execute(task, sql)
            turns.append(_turn(f"execute[{sql}]", observation))
        turns.append(_turn("submit", "Submitted."))
        return Demonstration(
            task_id=task.id, prompt=self._prompt(task), turns=tuple(turns), reward=self._reward(task, answer)
        )

    def close(self) -> None:
        """Free the databases; they open again when needed."""
        for sandbox in self._sandboxes.values():
            sandbox.close()
        self._sandboxes.clear()
        self._task = None

    def _prompt(self, task: Task) -> str:
        one = self._task_set.tasks[task.id]
        return f"Database {one.database}. Question: {one.question}"

    def _sandbox(self, task: Task) -> Sandbox:
        database = self._task_set.databases[self._task_set.tasks[task.id].database]
        if database.name not in self._sandboxes:
            self._sandboxes[database.name] = Sandbox(database, query_limits(self._options))
        return self._sandboxes[database.name]

    def _execute(self, task: Task, sql: str) -> tuple[str, list[tuple] | None]:
        """Observation, cut, and the whole rows; None for the rows after an error."""
        try:
            rows = self._sandbox(task).run(sql)
        except SqlError as error:
            return f"Error: {error}"[: self._options.observation_chars], None
        return str(rows)[: self._options.observation_chars], rows

    def _reward(self, task: Task, answer: list[tuple] | None) -> float:
        return intercode_reward(answer, self._sandbox(task).run(self._task_set.tasks[task.id].gold))


def _turn(action: str, observation: str) -> Turn:
    return Turn(response=format_response("", action), action=action, observation=observation)


def make_intercode_sql(options: InterCodeSqlOptions) -> InterCodeSqlEnv:
    """A new instance. Tasks are made once for equal options, or read once for one state of the task file."""
    if options.tasks_path is None:
        return InterCodeSqlEnv(options, generate_tasks(options))
    path = Path(options.tasks_path)
    modified = path.stat().st_mtime_ns if path.is_file() else 0
    return InterCodeSqlEnv(options, _read_once(options.tasks_path, modified, query_limits(options)))


@functools.lru_cache(maxsize=4)
def _read_once(path: str, _modified: int, limits: QueryLimits) -> TaskSet:
    return read_tasks(path, limits)
