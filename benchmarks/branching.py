"""Continuations from the middle of episodes, with beginnings shared and without.

python -m benchmarks.branching intercode_sql webshop
python -m benchmarks.branching intercode_sql --points 8 --samples 5 --turn 8 --rounds 5

Episodes of ten turns are written by a script, experts' turns again and again. Then a model of the
quickstart's shape, with random weights, plays on from a late turn of each. Both contenders are one engine
with the same environments: `shared` computes a beginning once for all its samples and restores the
environment's state, `each for itself` computes the beginning and plays its turns for every sample. They take
turns, and a ratio is of neighbours.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import flax.linen as nn
import jax

from coevo_jax.config.options import ModelConfig, RolloutConfig
from coevo_jax.config.recipe import BranchOptions
from coevo_jax.data.chat.format import ChatFormat, chat_format
from coevo_jax.data.chat.tokenizer import train_tokenizer
from coevo_jax.data.experts import expert_texts
from coevo_jax.envs.env import Task, format_response
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.registry import make_env
from coevo_jax.methods.points import Point
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.phases.branch import branch_points
from coevo_jax.report.markdown import table
from coevo_jax.rollout import BranchSet, play, play_together
from coevo_jax.rollout.stats import RolloutStats
from coevo_jax.run_folder.environment import cores, cpu
from coevo_jax.sampling.engine import Engine, Sampling
from coevo_jax.trajectory import Trajectory

TURNS = 10
OPTIONS: dict[str, dict[str, Any]] = {
    "intercode_sql": {"domains": 3, "synonym_share": 0.1, "observation_chars": 150},
    "webshop": {},
}


def turns_of(name: str, actions: Sequence[str]) -> list[str]:
    """Ten actions that do not end an episode, made of an expert's."""
    if name == "webshop":
        searches = [action for action in actions if action.startswith("search")]
        return [*searches[:1], "click[Back to Search]"] * (TURNS // 2)
    queries = [action for action in actions if action.startswith("execute")]
    return (queries * TURNS)[:TURNS]


@contextmanager
def nothing_shared() -> Iterator[None]:
    """An engine and environments in which every episode pays for its own beginning."""
    with (
        patch("coevo_jax.sampling.prefixes.Held.longest_prefix", lambda *_args, **_more: (0, 0)),
        patch("coevo_jax.sampling.engine.worth_waiting", lambda *_args: False),
        patch("coevo_jax.rollout.replay.can_restore", lambda _env: False),
    ):
        yield


def measure(name: str, points: int, samples: int, turn: int, rounds: int) -> dict[str, Any]:
    """Continuations a second of both contenders, in turns."""
    make = make_env(name, OPTIONS[name])
    env = make()
    experts = [(task, expert) for task in env.tasks("train")[: 2 * points] if (expert := env.expert(task))]
    experts = experts[:points]
    with tempfile.TemporaryDirectory() as folder:
        texts = expert_texts(env, [task for task, _ in experts])
        chat = chat_format(train_tokenizer(texts, 1024, Path(folder)))
    env.close()
    model = Transformer(
        ModelConfig(hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=4, intermediate_size=384),
        chat.vocab_size,
    )
    params = nn.unbox(init_params(model, jax.random.key(0)))
    config = RolloutConfig(slots=16, max_tokens=8192, max_turn_tokens=32, decode_block=16)
    engine = Engine(model, config, chat.end_id)
    script = {
        task.id: [
            chat.response_ids(format_response("", action))
            for action in turns_of(name, [one.action for one in expert.turns])
        ]
        for task, expert in experts
    }
    with EnvPool(make, workers=4, step_timeout=120.0) as pool:
        parents = _parents(engine, params, pool, chat, [task for task, _ in experts], script)
        options = BranchOptions.model_validate(
            {"agent": "target", "into": "tails", "at": "failed_turns", "samples": samples}
        )
        tasks = {task.id: task for task, _ in experts}
        chosen = branch_points([Point(one, turn) for one in parents], tasks, chat, options, "branching")
        weights = engine.load(params)

        def run() -> RolloutStats:
            cast = BranchSet(
                agent="target", weights=weights, points=chosen, samples=samples, turns=None, phase=1
            )
            sampling = Sampling(root=jax.random.key(0), temperature=1.0)
            return play_together(engine, pool, chat, [cast], sampling=sampling)[0][1]

        rows = _in_turns(run, rounds)
    beginning = statistics.mean(point.start.branch.tokens for point in chosen)
    return {"env": name, "points": len(chosen), "samples": samples, "beginning": beginning, "rows": rows}


def _parents(
    engine: Engine, params: Any, pool: EnvPool, chat: ChatFormat, tasks: Sequence[Task], script: Any
) -> list[Trajectory]:
    played, _ = play(
        engine,
        params,
        pool,
        chat,
        tasks,
        agent="target",
        samples=1,
        temperature=0.0,
        seed=0,
        phase=0,
        script=script,
    )
    return played


def _in_turns(run: Callable[[], RolloutStats], rounds: int) -> list[dict[str, dict[str, float]]]:
    def timed() -> dict[str, float]:
        wall, used = time.monotonic(), time.process_time()
        stats = run()
        return {
            "seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - used,
            "episodes": stats.episodes,
            "prefill_tokens": stats.prefill_tokens,
            "prefix_tokens": stats.prefix_tokens,
            "env_calls": stats.env_calls,
            "faults": stats.faults,
        }

    rows = []
    for number in range(rounds + 1):
        shared = timed()
        with nothing_shared():
            alone = timed()
        if number:  # the first one compiles
            rows.append({"shared": shared, "each for itself": alone})
    return rows


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """One row for each environment and contender, and the ratio of neighbours."""
    header = ("environment", "beginning, tokens", "continuations", "continuations/s (range)", "CPU s each")
    header += ("tokens computed", "tokens copied", "times each for itself (range)")
    lines = []
    for result in results:
        rows = result["rows"]
        for who in ("shared", "each for itself"):
            rates = [row[who]["episodes"] / row[who]["seconds"] for row in rows]
            used = statistics.median(row[who]["cpu_seconds"] / row[who]["episodes"] for row in rows)
            ratios = [row["each for itself"]["seconds"] / row["shared"]["seconds"] for row in rows]
            last = rows[-1][who]
            times = "1" if who != "shared" else _ranged(ratios)
            lines.append(
                (
                    f"{result['env']}, {who}",
                    f"{result['beginning']:.0f}",
                    f"{result['points']} x {result['samples']}",
                    _ranged(rates),
                    f"{used:.3f}",
                    f"{last['prefill_tokens']:,.0f}",
                    f"{last['prefix_tokens']:,.0f}",
                    times,
                )
            )
    return table(header, lines) + f"\n\nMeasured on {cpu()}, {cores()} cores, jax {jax.__version__}."


def _ranged(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.branching", description=__doc__)
    parser.add_argument("environments", nargs="+", choices=list(OPTIONS))
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--turn", type=int, default=8, help="turns that are played again, of ten")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write what was measured")
    args = parser.parse_args()
    results = [measure(name, args.points, args.samples, args.turn, args.rounds) for name in args.environments]
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    print(markdown(results))


if __name__ == "__main__":
    main()
