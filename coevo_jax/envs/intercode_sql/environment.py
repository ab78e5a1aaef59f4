"""The InterCode-SQL environment: explore a database with SQL, then submit the last result."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault, StepResult, Task, format_response
from coevo_jax.envs.intercode_sql.mysql import LENIENT, STRICT, ServerConnection, ServerSandbox, parse_dsn
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.reward import intercode_reward
from coevo_jax.envs.intercode_sql.spider import Spider, load_spider
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits, Sandbox, SqlBackend, SqlError
from coevo_jax.envs.intercode_sql.task_file import read_tasks, write_tasks
from coevo_jax.envs.intercode_sql.tasks import TaskSet, generate_tasks, query_limits
from coevo_jax.trajectory import Demonstration, Turn

INVALID_ACTION = "Invalid action: expected execute[SQL] or submit."
ERROR = "Error"  # how the answer to a query that failed begins
EXECUTE = re.compile(r"execute\s*\[(.*)\]", re.IGNORECASE | re.DOTALL)  # words may follow the last bracket
EXPERT_EXTRA_TURNS = 3  # SHOW TABLES, the gold query, submit
KEYWORD_TABLES = frozenset(
    {"show", "read", "keys", "use", "option", "condition", "range", "describe", "lock"}
)
FENCE = re.compile(r"```(?:sql\b)?(.*)```", re.IGNORECASE | re.DOTALL)


def parse_action(action: str) -> str | None:
    """The SQL of an action, which may span lines and stand in a fence; None where the action holds none.

    As upstream, it takes what stands before the last closing bracket and leaves out what follows.
    """
    text = action.strip()
    if found := EXECUTE.match(text):
        text = found[1].strip()
        fenced = FENCE.fullmatch(text)
        return (fenced[1].strip() if fenced else text) or None
    fenced = FENCE.fullmatch(text)
    return (fenced[1].strip() or None) if fenced else None


def is_submit(action: str) -> bool:
    """Whether an action ends the episode."""
    return action.strip().lower() == "submit"


class InterCodeSqlEnv:
    """One instance: its own databases, opened when first needed; tasks are shared.

    Source of the rules: InterCode (arXiv 2306.14898); turn limit, reward 0 at the limit and the cut of
    observations: IPR (arXiv 2406.11176). A server may give rows without ORDER BY in another order, so with a
    `dsn` the environment does not promise to be deterministic.
    """

    name = "intercode_sql"
    system_prompt = "Answer by execute[SQL], then submit."
    deterministic = True

    def __init__(
        self,
        options: InterCodeSqlOptions,
        task_set: TaskSet,
        open_database: Callable[[str], SqlBackend] | None = None,
    ):
        """`open_database` gives the database of a name; without it the task set holds the databases."""
        self._options = options
        self._task_set = task_set
        self._open_database = open_database or self._generated_database
        self._error_words = f"{ERROR}: " if options.spider_path is None else f"{ERROR} executing query: "
        self.deterministic = options.dsn is None
        self._sandboxes: dict[str, SqlBackend] = {}
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
        """Run a query, or submit the last result for its reward.

        Raises:
          RuntimeError: no episode has begun, or the last one is over.
        """
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

    def is_error(self, observation: str) -> bool:
        """Answers of a failed query begin with "Error"; rows with a bracket."""
        return observation.startswith(ERROR)

    def reward_at_limit(self) -> float:
        """An episode that is cut before `submit` earns 0."""
        return 0.0

    def snapshot(self) -> Any:
        """The rows of the last query: nothing else of an episode is left behind, for queries only read."""
        return (self._answer,)

    def restore(self, task: Task, state: Any) -> None:
        """Go on with the rows that a `snapshot` of this task kept."""
        self._task, (self._answer,) = task, state

    def expert(self, task: Task) -> Demonstration:
        """Show the tables, describe those of the gold query, run it, submit; a running episode goes on.

        Tables are left out from the last one on where all would not fit into the turns.
        """
        gold = self._task_set.tasks[task.id].gold
        described = self._used_tables(task, gold)[: max(0, self._options.max_turns - EXPERT_EXTRA_TURNS)]
        queries = ["SHOW TABLES", *(f"DESC {table}" for table in described), gold]
        turns, answer = [], None
        for sql in queries[-max(1, self._options.max_turns - 1) :]:
            observation, answer = self._execute(task, sql)
            turns.append(_turn(f"execute[{sql}]", observation))
        turns.append(_turn("submit", "Submitted."))
        return Demonstration(
            task_id=task.id, prompt=self._prompt(task), turns=tuple(turns), reward=self._reward(task, answer)
        )

    def _used_tables(self, task: Task, gold: str) -> list[str]:
        """Tables that the gold query names, in its order; in backticks where MySQL wants them."""
        words = [word.lower() for word in re.findall(r"\w+", gold)]
        used = [table for table in self._sandbox(task).tables if table.lower() in words]
        used.sort(key=lambda table: words.index(table.lower()))
        if self._options.spider_path is None:
            return used
        return [f"`{table}`" if table.lower() in KEYWORD_TABLES else table for table in used]

    def close(self) -> None:
        """Free the databases; they open again when needed."""
        for sandbox in self._sandboxes.values():
            sandbox.close()
        self._sandboxes.clear()
        self._task = None

    def _prompt(self, task: Task) -> str:
        one = self._task_set.tasks[task.id]
        return f"Database {one.database}. Question: {one.question}"

    def _sandbox(self, task: Task) -> SqlBackend:
        name = self._task_set.tasks[task.id].database
        if name not in self._sandboxes:
            self._sandboxes[name] = self._open_database(name)
        return self._sandboxes[name]

    def _generated_database(self, name: str) -> SqlBackend:
        return Sandbox(self._task_set.databases[name], query_limits(self._options))

    def _execute(self, task: Task, sql: str) -> tuple[str, list[tuple] | None]:
        """Observation, cut, and the whole rows; None for the rows after an error.

        A gold query runs as one, whoever asks it: some of them need the rules that gold queries run under.
        """
        sandbox = self._sandbox(task)
        try:
            rows = sandbox.run_gold(sql) if sql == self._task_set.tasks[task.id].gold else sandbox.run(sql)
        except SqlError as error:
            return f"{self._error_words}{error}"[: self._options.observation_chars], None
        return str(rows)[: self._options.observation_chars], rows

    def _reward(self, task: Task, answer: list[tuple] | None) -> float:
        try:
            gold = self._sandbox(task).run_gold(self._task_set.tasks[task.id].gold)
        except SqlError as error:
            raise EnvFault(f"the gold query of {task.id} failed: {error}") from error
        return intercode_reward(answer, gold)


def _turn(action: str, observation: str) -> Turn:
    return Turn(response=format_response("", action), action=action, observation=observation)


def make_intercode_sql(options: InterCodeSqlOptions) -> InterCodeSqlEnv:
    """A new instance. Tasks are made once for equal options, or read once for one state of their files.

    Raises:
      ConfigError: files cannot be used, or a server cannot be reached.
    """
    if options.spider_path is not None:
        limits = query_limits(options)
        spider = load_spider(options.spider_path, options.seed, limits)
        return InterCodeSqlEnv(options, spider.tasks, _spider_databases(options, spider, limits))
    if options.tasks_path is None:
        return InterCodeSqlEnv(options, generate_tasks(options))
    path = Path(options.tasks_path)
    modified = path.stat().st_mtime_ns if path.is_file() else 0
    return InterCodeSqlEnv(options, _read_once(options.tasks_path, modified, query_limits(options)))


def _spider_databases(
    options: InterCodeSqlOptions, spider: Spider, limits: QueryLimits
) -> Callable[[str], SqlBackend]:
    rules = STRICT if options.strict else LENIENT
    if options.dsn is None:
        return lambda name: spider.dump.open(name, limits, rules)
    connection = ServerConnection(parse_dsn(options.dsn), limits)
    connection.check(spider.dump.names)
    return lambda name: ServerSandbox(connection, name, spider.dump.tables(name), rules)


@functools.lru_cache(maxsize=4)
def _read_once(path: str, _modified: int, limits: QueryLimits) -> TaskSet:
    return read_tasks(path, limits)


def generate_intercode_sql(
    options: InterCodeSqlOptions, out: Path, on_progress: Callable[[int, int], None]
) -> None:
    """Write the generated databases and tasks of the options as `out`/tasks.jsonl, for `tasks_path`.

    Equal options give equal bytes.

    Raises:
      ConfigError: the options name tasks instead of generating them.
    """
    if options.spider_path is not None or options.tasks_path is not None:
        raise ConfigError("options: found tasks_path or spider_path, expected only options of the generator")
    on_progress(0, 1)
    write_tasks(out / "tasks.jsonl", generate_tasks(options))
    on_progress(1, 1)
