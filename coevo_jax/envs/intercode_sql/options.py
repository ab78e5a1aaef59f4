"""Options of the InterCode-SQL environment."""

from typing import Self

from pydantic import Field, model_validator

from coevo_jax.config.strict import StrictModel
from coevo_jax.envs.intercode_sql.lexicon import DOMAINS, NAMES

PLAY_OPTIONS = frozenset(
    {"tasks_path", "max_turns", "observation_chars", "row_cap", "query_instructions", "query_seconds"}
)
"""Options that also hold for tasks read from a file; all others steer the generator."""
SPIDER_OPTIONS = (PLAY_OPTIONS - {"tasks_path"}) | {"spider_path", "dsn", "strict", "seed"}
"""Options that hold for the Spider tasks."""


class InterCodeSqlOptions(StrictModel):
    """Where the tasks come from, and the limits of an episode and of a query."""

    tasks_path: str | None = None
    """Task file (JSON lines, see `write_tasks`) to play instead of generated tasks; null generates them."""
    spider_path: str | None = None
    """Folder with ic_spider_dev.json and ic_spider_dbs.sql, InterCode's real tasks, to play instead."""
    dsn: str | None = None
    """Server that runs the queries of spider_path instead of the built-in emulation of MySQL:
    mysql://user:password@host:port, or better $COEVO_SQL_DSN (read from the environment, and the password
    stays out of the run's files). The server must hold the dump."""
    strict: bool = True
    """Whether MySQL refuses what the agent asks under its default sql_mode (ONLY_FULL_GROUP_BY; `count (*)`
    with a space); false takes both. A gold query always runs without, as 15 need. Only with spider_path."""
    seed: int = Field(0, ge=0)
    """Seed of the generated databases and questions; with spider_path, of the split by database."""
    train_databases: int = Field(40, ge=1)
    """Generated databases of the train split."""
    dev_databases: int = Field(6, ge=1)
    """Generated databases of the dev split; none of them stands in train."""
    test_databases: int = Field(10, ge=1)
    """Generated databases of the test split; none of them stands in train or dev."""
    train_tasks: int = Field(2400, ge=0)
    """Tasks of the train split, spread evenly over its databases."""
    dev_tasks: int = Field(200, ge=0)
    """Tasks of the dev split."""
    test_tasks: int = Field(400, ge=0)
    """Tasks of the test split."""
    unseen_form_share: float = Field(0.3, ge=0, le=1)
    """Share of the test tasks whose question form never occurs in train or dev (family "unseen-form/...")."""
    domains: int = Field(len(DOMAINS), ge=1, le=len(DOMAINS))
    """Themes the databases are drawn from (music, school, ...): fewer make fewer table names to learn."""
    synonym_share: float = Field(0.5, ge=0, le=1)
    """Share of tables and columns named by a synonym of the question's word, which only the schema shows."""
    min_rows: int = Field(20, ge=5)
    """Fewest rows of a generated table."""
    max_rows: int = Field(40, ge=5, le=len(NAMES))
    """Most rows of a generated table."""
    max_turns: int = Field(10, ge=1)
    """Turns after which an episode is cut with reward 0."""
    observation_chars: int = Field(350, ge=20)
    """Characters an observation is cut to (not so for the reward); below 150 schemas are cut too."""
    row_cap: int | None = Field(None, ge=2)
    """Most rows fetched from a query; every gold answer has fewer. Null: 100, with spider_path 10,000."""
    query_instructions: int | None = Field(None, ge=10_000)
    """Most SQLite virtual-machine instructions of a query: the same limit on every machine. Null: 1,000,000,
    with spider_path 20,000,000, of which a row that is read, joined or grouped counts as 20."""
    query_seconds: float = Field(2.0, gt=0)
    """Most wall-clock seconds of a query, for the rare one whose single instructions are slow."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_rows > self.max_rows:
            raise ValueError(f"min_rows at most max_rows ({self.max_rows})")
        if self.spider_path is not None:
            if idle := sorted(self.model_fields_set - SPIDER_OPTIONS):
                raise ValueError(f"only spider_path's options (these would do nothing: {', '.join(idle)})")
            if self.dsn is not None and self.query_instructions is not None:
                raise ValueError("no query_instructions beside dsn (a server is cut by query_seconds alone)")
        elif self.dsn is not None:
            raise ValueError("spider_path beside dsn (the folder with the questions and the dump)")
        elif self.tasks_path is None:
            if self.row_cap is not None and self.row_cap <= self.max_rows:
                raise ValueError(f"row_cap greater than max_rows ({self.max_rows})")
        elif idle := sorted(self.model_fields_set - PLAY_OPTIONS):
            raise ValueError(
                f"no generator option beside tasks_path (these would do nothing: {', '.join(idle)})"
            )
        return self
