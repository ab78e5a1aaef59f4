"""Task sets: generated from a seed, or read from a file, with a gold answer that runs for every task."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS, Task
from coevo_jax.envs.intercode_sql.databases import GeneratedDatabase, generate_database
from coevo_jax.envs.intercode_sql.lexicon import DOMAINS
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.questions import FORMS, UNSEEN_FORMS, Form, Question, draw_question
from coevo_jax.envs.intercode_sql.sqlite_sandbox import Database, QueryLimits, Sandbox

UNSEEN_FORM_PREFIX = "unseen-form/"
GRADED_ROWS = 5  # answers of at least as many rows give a graded reward, and are preferred
KEEP_SMALL = (
    0.3  # share of the drawn questions with a smaller answer that are kept, where a form has larger ones
)
DRAWS_PER_TASK = 200


@dataclass(frozen=True, kw_only=True)
class SqlTask:
    """A task with what the agent must not see."""

    task: Task
    database: str
    question: str
    gold: str


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """All tasks and databases of an environment; shared by its instances, never written to."""

    databases: Mapping[str, Database]
    tasks: Mapping[str, SqlTask]  # by id
    splits: Mapping[str, tuple[Task, ...]]  # in a fixed order


def make_task_set(databases: Mapping[str, Database], tasks: list[SqlTask]) -> TaskSet:
    """A task set whose splits keep the order of `tasks`."""
    splits = {split: tuple(one.task for one in tasks if one.task.split == split) for split in SPLITS}
    return TaskSet(
        databases=MappingProxyType(dict(databases)),
        tasks=MappingProxyType({one.task.id: one for one in tasks}),
        splits=MappingProxyType(splits),
    )


def query_limits(options: InterCodeSqlOptions) -> QueryLimits:
    """Where the options cut a query; the real tasks have larger tables and answers."""
    rows, instructions = (100, 1_000_000) if options.spider_path is None else (10_000, 20_000_000)
    return QueryLimits(
        rows=rows if options.row_cap is None else options.row_cap,
        instructions=instructions if options.query_instructions is None else options.query_instructions,
        seconds=options.query_seconds,
    )


def generate_tasks(options: InterCodeSqlOptions) -> TaskSet:
    """The generated tasks of the options, the same in every process; ConfigError where they are too many.

    A database depends on the seed, its split and its place only: more train databases leave test as it is.
    """
    return _generate_once(options.model_dump_json())


@functools.lru_cache(maxsize=4)
def _generate_once(options_json: str) -> TaskSet:
    options = InterCodeSqlOptions.model_validate_json(options_json)
    counts = {
        "train": (options.train_databases, options.train_tasks),
        "dev": (options.dev_databases, options.dev_tasks),
        "test": (options.test_databases, options.test_tasks),
    }
    databases: dict[str, Database] = {}
    tasks: list[SqlTask] = []
    for split_index, split in enumerate(SPLITS):
        database_count, task_count = counts[split]
        split_tasks: list[SqlTask] = []
        for place in range(database_count):
            key = [options.seed, split_index, place]
            generated = generate_database(
                stream("sql database", *key),
                DOMAINS[place % options.domains],
                place * len(SPLITS) + split_index,
                synonym_share=options.synonym_share,
                min_rows=options.min_rows,
                max_rows=options.max_rows,
            )
            databases[generated.database.name] = generated.database
            wanted = task_count // database_count + (place < task_count % database_count)
            unseen = round(wanted * options.unseen_form_share) if split == "test" else 0
            rng = stream("sql questions", *key)
            split_tasks += _draw_tasks(rng, generated, split, wanted, unseen, options)
        order = stream("sql order", options.seed, split_index).permutation(len(split_tasks))
        tasks += [split_tasks[i] for i in order]
    return make_task_set(databases, tasks)


def _draw_tasks(
    rng: np.random.Generator,
    generated: GeneratedDatabase,
    split: str,
    wanted: int,
    unseen: int,
    options: InterCodeSqlOptions,
) -> list[SqlTask]:
    """`wanted` tasks of one database, the first `unseen` of them with a form of UNSEEN_FORMS."""
    sandbox = Sandbox(generated.database, query_limits(options))
    database = generated.database.name
    seen: set[str] = set()
    tasks = []
    for number in range(wanted):
        forms, prefix = (UNSEEN_FORMS, UNSEEN_FORM_PREFIX) if number < unseen else (FORMS, "")
        drawn = _draw_task(rng, generated, forms, sandbox, seen)
        if drawn is None:
            raise ConfigError(
                f"env.options.{split}_tasks: found {wanted} for one database, expected at most {number} "
                f"({database} has no more questions); raise {split}_databases"
            )
        family, question = drawn
        seen.add(question.text)
        task = Task(id=f"{database}/{number}", split=split, family=prefix + family)
        tasks.append(SqlTask(task=task, database=database, question=question.text, gold=question.gold))
    sandbox.close()
    return tasks


def _draw_task(
    rng: np.random.Generator,
    generated: GeneratedDatabase,
    forms: Mapping[str, Form],
    sandbox: Sandbox,
    seen: set[str],
) -> tuple[str, Question] | None:
    """A form and a question that is new here and has an answer; None after too many vain draws."""
    names = list(forms)
    bounds = np.cumsum([form.weight for form in forms.values()])
    for _ in range(DRAWS_PER_TASK):
        family = names[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
        question = draw_question(rng, generated.tables, forms[family])
        if question is None or question.text in seen:
            continue
        rows = sandbox.run(question.gold)
        if not rows or rows == [(None,)]:
            continue
        if len(rows) >= GRADED_ROWS or family == "aggregate" or rng.random() < KEEP_SMALL:
            return family, question
    return None
