"""InterCode-SQL: generated tasks, or Spider's over emulated or real MySQL; InterCode's reward; experts."""

from coevo_jax.envs.intercode_sql.environment import (
    InterCodeSqlEnv,
    generate_intercode_sql,
    make_intercode_sql,
)
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.intercode_sql.reward import intercode_reward
from coevo_jax.envs.intercode_sql.task_file import read_tasks, write_tasks

__all__ = [
    "InterCodeSqlEnv",
    "InterCodeSqlOptions",
    "generate_intercode_sql",
    "intercode_reward",
    "make_intercode_sql",
    "read_tasks",
    "write_tasks",
]
