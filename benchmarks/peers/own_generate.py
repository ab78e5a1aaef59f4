"""coevo_jax as a contender of `benchmarks.rollouts`: the engine of `launch.train`, and roll-outs on it."""

import time
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from benchmarks.peers.pipe import Pipe
from benchmarks.rollout_jobs import MODEL, VOCAB
from coevo_jax.config.options import RolloutConfig
from coevo_jax.envs.env import StepResult, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.rollout import play
from coevo_jax.sampling.engine import Engine, Request, Sampling
from coevo_jax.trajectory import Demonstration

END = VOCAB - 1


class IdChat:
    """Texts that are token ids already, as decimal numbers. Same methods as ChatFormat."""

    end_id, pad_id, vocab_size = END, 0, VOCAB

    def prompt_ids(self, system: str, prompt: str) -> list[int]:
        return self._encode(prompt)

    def response_ids(self, text: str) -> list[int]:
        return [*self._encode(text), END]

    def observation_ids(self, observation: str) -> list[int]:
        return self._encode(observation)

    def decode_response(self, ids: Sequence[int]) -> str:
        return f"Action: {len(ids)} tokens"

    def _encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


class Listed:
    """An environment that answers from a list, whatever the action."""

    name, system_prompt, deterministic = "listed", "", True

    def __init__(self, episodes: list[dict[str, Any]]) -> None:
        self._episodes, self._turn = episodes, 0

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=str(n), split=split, family="listed") for n in range(len(self._episodes))]

    def max_turns(self, task: Task) -> int:
        return len(self._episodes[int(task.id)]["observations"])

    def reset(self, task: Task) -> str:
        self._turn, self._episode = 0, self._episodes[int(task.id)]
        return " ".join(map(str, self._episode["prompt"]))

    def step(self, action: str) -> StepResult:
        self._turn += 1
        # The turn is closed with one token: together they are as many as the peer reads.
        answer = " ".join(map(str, self._episode["observations"][self._turn - 1][1:]))
        return StepResult(observation=answer, done=False, reward=0.0)

    def reward_at_limit(self) -> float:
        return 0.0

    def expert(self, task: Task) -> Demonstration | None:
        return None

    def close(self) -> None:
        return


def stop_after(tokens: int) -> np.ndarray:
    """A stop table by which every turn ends after so many tokens."""
    return np.repeat(np.arange(1, tokens + 1, dtype=np.int8)[:, None], VOCAB, axis=1)


def random_model() -> tuple[Transformer, Any]:
    model = Transformer(MODEL, VOCAB)
    return model, nn.unbox(init_params(model, jax.random.key(0)))


def decode(engine: Engine, weights: Any, job: dict[str, Any]) -> tuple[list[list[int]], float]:
    """Greedy continuations of the prompts, and the seconds of decoding alone."""
    engine.reset()
    prompts = {slot: np.array(ids, np.int32) for slot, ids in enumerate(job["prompts"])}
    for call in engine.prefill(weights, prompts, frozenset(prompts)):
        call.block_until_ready()
    start, tokens = time.perf_counter(), [[] for _ in prompts]
    sampling = Sampling(root=jax.random.key(0), temperature=0.0)
    while (left := job["decode_tokens"] - len(tokens[0])) > 0:
        requests = {slot: Request(budget=left, ids=(0, slot, 0, 0)) for slot in prompts}
        for slot, written in engine.decode(weights, requests, sampling, quota=len(prompts)).fetch().items():
            tokens[slot] += written.tokens
    return tokens, time.perf_counter() - start


def main() -> None:
    pipe = Pipe()
    job = pipe.job()
    model, params = random_model()
    longest = len(job["prompts"][0]) + job["decode_tokens"] + 1
    limits = RolloutConfig(
        slots=job["batch"], max_tokens=longest, max_turn_tokens=job["decode_tokens"], decode_block=64
    )
    flat = Engine(model, limits, end_id=-1)
    episode = job["episodes"][0]
    turn = job["turn_tokens"]
    longest = len(episode["prompt"]) + sum(turn + len(one) for one in episode["observations"])
    engine = Engine(
        model,
        RolloutConfig(slots=job["batch"], max_tokens=longest, max_turn_tokens=turn, decode_block=turn),
        end_id=END,
        stop=stop_after(turn),
    )
    weights = flat.load(params)
    tasks = Listed(job["episodes"]).tasks("train")
    pipe.report({"versions": f"coevo_jax, jax {jax.__version__}", "device": jax.devices()[0].device_kind})
    number = 0
    with EnvPool(lambda: Listed(job["episodes"]), workers=2, step_timeout=60) as pool:
        while True:
            pipe.wait()
            if job["cases"][number % len(job["cases"])] == "decode":
                tokens, seconds = decode(flat, weights, job)
                pipe.report({"case": "decode", "tokens": tokens, "decode_seconds": seconds})
            else:
                _, stats = play(
                    engine,
                    params,
                    pool,
                    IdChat(),
                    tasks,
                    agent="target",
                    samples=1,  # pyright: ignore[reportArgumentType]
                    temperature=0.0,
                    seed=0,
                    phase=0,
                )
                pipe.report(
                    {
                        "case": "episodes",
                        "written": stats.agent_tokens,
                        "episodes": stats.episodes,
                        "stats": stats.values(),
                    }
                )
            number += 1


if __name__ == "__main__":
    main()
