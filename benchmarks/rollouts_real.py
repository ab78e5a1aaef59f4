"""Real environments for `benchmarks.rollouts`: experts' turns written, environments stepping.

An untrained agent's turns would be malformed and reach no environment, so the device writes the experts'
tokens: the same forward passes as drawn ones, and the same steps. The episodes are then replayed with the
answers known beforehand, which is what an environment without latency would give.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from coevo_jax.config.options import ModelConfig, RolloutConfig
from coevo_jax.data.chat.format import ChatFormat, chat_format
from coevo_jax.data.chat.tokenizer import train_tokenizer
from coevo_jax.data.experts import expert_texts
from coevo_jax.envs.env import Env, PreparesExperts, StepResult, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.process import isolated
from coevo_jax.envs.registry import make_env
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.rollout import play
from coevo_jax.rollout.stats import RolloutStats
from coevo_jax.sampling.engine import Engine
from coevo_jax.trajectory import Demonstration, Trajectory

WORKERS = 4
STEP_TIMEOUT = 120.0
MEMORY_MIB = 1024
OPTIONS: dict[str, dict[str, Any]] = {
    "intercode_sql": {"domains": 3, "synonym_share": 0.1, "observation_chars": 150},
    "scienceworld": {"families": ["find-animal", "find-non-living-thing"], "observation_chars": 300},
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One environment with so many slots."""

    env: str
    slots: int
    how: str  # threads, processes, or zero latency
    joining: str
    episodes_per_second: float
    occupancy: float
    busy_share: float  # of the device
    env_p50: float  # seconds
    env_p95: float


class _Recorded:
    """An environment that answers at once what it answered before."""

    deterministic = True

    def __init__(self, name: str, system_prompt: str, episodes: dict[str, Trajectory]) -> None:
        self.name, self.system_prompt, self._episodes = name, system_prompt, episodes

    def tasks(self, split: str) -> Sequence[Task]:
        return []

    def max_turns(self, task: Task) -> int:
        return len(self._episodes[task.id].turns)

    def reset(self, task: Task) -> str:
        self._episode, self._turn = self._episodes[task.id], 0
        return self._episode.prompt

    def step(self, action: str) -> StepResult:
        turn = self._episode.turns[self._turn]
        self._turn += 1
        done = self._turn == len(self._episode.turns)
        return StepResult(observation=turn.observation, done=done, reward=self._episode.reward)

    def reward_at_limit(self) -> float:
        return self._episode.reward

    def expert(self, task: Task) -> Demonstration | None:
        return None

    def close(self) -> None:
        return


def measure(
    name: str, slots: Sequence[int], episodes: int, joining: Sequence[str], processes: bool, repeats: int
) -> list[dict[str, Any]]:
    """Episodes of one environment with each number of slots, and the same with the answers known."""
    make = make_env(name, OPTIONS[name])
    env = make()
    tasks = list(env.tasks("train"))[:episodes]
    if isinstance(env, PreparesExperts):
        env.prepare_experts(tasks, lambda done, total: None)
    experts = {task.id: expert for task in tasks if (expert := env.expert(task)) is not None}
    tasks = [task for task in tasks if task.id in experts]
    with tempfile.TemporaryDirectory() as folder:
        chat = chat_format(train_tokenizer(expert_texts(env, tasks), 1024, Path(folder)))
    script = {
        id: [chat.response_ids(turn.response) for turn in expert.turns] for id, expert in experts.items()
    }
    prompt = env.system_prompt
    env.close()
    model = Transformer(
        ModelConfig(hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=4, intermediate_size=384),
        chat.vocab_size,
    )
    params = nn.unbox(init_params(model, jax.random.key(0)))
    rows: list[Row] = []
    for count in slots:
        for how in joining:
            config = RolloutConfig(
                slots=count,
                max_tokens=1536,
                max_turn_tokens=96,
                decode_block=16,
                joining=how,  # pyright: ignore[reportArgumentType]
            )
            engine = Engine(model, config, chat.end_id)
            makers: dict[str, Callable[[], Env]] = {"threads": make}
            if processes:
                makers["processes"] = isolated(make, MEMORY_MIB)
            known: dict[str, Trajectory] = {}
            makers["zero latency"] = lambda known=known: _Recorded(name, prompt, known)
            rows += _measure_makers(name, engine, params, chat, tasks, script, makers, known, repeats)
    return [asdict(row) for row in rows]


def _measure_makers(
    name: str,
    engine: Engine,
    params: Any,
    chat: ChatFormat,
    tasks: Sequence[Task],
    script: dict[str, list[list[int]]],
    makers: dict[str, Callable[[], Env]],
    known: dict[str, Trajectory],
    repeats: int,
) -> list[Row]:
    """In turn, the first time to warm up and to learn the answers; the best of the others counts."""
    best: dict[str, RolloutStats] = {}
    pools = {how: EnvPool(make, workers=WORKERS, step_timeout=STEP_TIMEOUT) for how, make in makers.items()}
    try:
        for turn in range(repeats + 1):
            for how, pool in pools.items():
                trajectories, stats = play(
                    engine,
                    params,
                    pool,
                    chat,
                    tasks,
                    agent="expert",
                    samples=1,
                    temperature=0.0,
                    seed=0,
                    phase=0,
                    script=script,
                )
                if not known:
                    known.update({one.task_id: one for one in trajectories})
                if turn and (how not in best or stats.seconds < best[how].seconds):
                    best[how] = stats
    finally:
        for pool in pools.values():
            pool.close()
    return [
        Row(
            env=name,
            slots=engine.slots,
            how=how,
            joining=engine.config.joining,
            episodes_per_second=stats.episodes / stats.seconds,
            occupancy=stats.occupancy,
            busy_share=stats.values()["device_busy_share"],
            env_p50=stats.env_latency[0],
            env_p95=stats.env_latency[1],
        )
        for how, stats in best.items()
    ]
