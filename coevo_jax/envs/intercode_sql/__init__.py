"""InterCode-SQL over SQLite: generated databases and questions, gold queries, InterCode's reward, experts."""

from coevo_jax.envs.intercode_sql.environment import InterCodeSqlEnv, make_intercode_sql
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.reward import intercode_reward
from coevo_jax.envs.intercode_sql.task_file import read_tasks, write_tasks

__all__ = [
    "InterCodeSqlEnv",
    "InterCodeSqlOptions",
    "intercode_reward",
    "make_intercode_sql",
    "read_tasks",
    "write_tasks",
]
