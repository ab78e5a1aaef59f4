"""Preference pairs that `benchmarks.learning` trains on, and the arithmetic that they cannot do without.

A set is a list of optimizer steps, each with as many pairs as the others. A trajectory is a mapping with
`task`, `tokens`, `mask` (1 where the agent wrote the token) and `prompt`, the tokens before it first acts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.config.check_recipe import source_options
from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.config.recipe_queries import lead_of, learnings_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.methods.material import cut_turns
from coevo_jax.trajectory import Trajectory

PROMPT = 256  # tokens
COMPLETION = (256, 768)  # fewest and most tokens of a random completion
FAILURES = 2  # of either agent, for one task
SINGLE_PAIRS = 4  # of a step, each of a task of its own
RUN_PAIRS = 8  # of a step
SEED = 20240214

Record = dict[str, Any]
Step = list[tuple[int, int]]  # chosen and rejected, by index


@dataclass(frozen=True, kw_only=True)
class PairSteps:
    """The pairs of several optimizer steps, and the trajectories that they name by index."""

    name: str
    trajectories: list[Record]
    steps: list[Step]

    def tokens(self, step: Step) -> int:
        """Tokens of all pairs, prompts and completions: what is encoded pair by pair."""
        return sum(len(self.trajectories[index]["tokens"]) for pair in step for index in pair)

    def unique_tokens(self, step: Step) -> int:
        """Tokens that need encoding once: what trajectories of a task begin alike with counts once."""
        return _tree_counts(self.trajectories[index] for index in {i for pair in step for i in pair})[0]


def co_evolution(steps: int, vocab_size: int) -> PairSteps:
    """One task a step: an expert over two failures of either agent, and these over one another; 8 pairs."""
    rng = np.random.default_rng([SEED, 0])
    trajectories: list[Record] = []
    every: list[Step] = []
    for number in range(steps):
        first = len(trajectories)
        trajectories += _task(rng, f"task-{number}", 1 + 2 * FAILURES, vocab_size)
        targets = range(first + 1, first + 1 + FAILURES)
        hard = range(first + 1 + FAILURES, first + 1 + 2 * FAILURES)
        over = [(first, other) for other in (*targets, *hard)]
        # In turn, so that a part of the step is like the whole.
        between = reversed(list(product(targets, hard)))
        every.append([pair for both in zip(over, between, strict=True) for pair in both])
    return PairSteps(name="co-evolution", trajectories=trajectories, steps=every)


def single_pairs(steps: int, vocab_size: int) -> PairSteps:
    """Tasks with one chosen and one rejected completion: nothing but the prompt is shared."""
    rng = np.random.default_rng([SEED, 1])
    trajectories: list[Record] = []
    every: list[Step] = []
    for number in range(steps):
        step = []
        for pair in range(SINGLE_PAIRS):
            step.append((len(trajectories), len(trajectories) + 1))
            trajectories += _task(rng, f"task-{number}-{pair}", 2, vocab_size)
        every.append(step)
    return PairSteps(name="single pairs", trajectories=trajectories, steps=every)


def _task(rng: np.random.Generator, task: str, completions: int, vocab_size: int) -> list[Record]:
    prompt = rng.integers(2, vocab_size, PROMPT).tolist()
    lengths = rng.integers(COMPLETION[0], COMPLETION[1] + 1, completions)
    return [
        {
            "task": task,
            "tokens": prompt + rng.integers(2, vocab_size, length).tolist(),
            "mask": [0] * PROMPT + [1] * int(length),
            "prompt": PROMPT,
        }
        for length in lengths
    ]


def _extra_turns(config: Config) -> dict[str, int | None]:
    """By how many turns each kind of pair's rejected side may exceed the expert."""
    sources = [
        one for learning in learnings_of(config.recipe, lead_of(config.recipe)) for one in learning.pairs
    ]
    return {source.label: source_options(source).get("max_extra_turns") for source in sources}


def of_run(folder: Path, steps: int) -> PairSteps:
    """Pairs that a finished run trained its lead on, tasks in random order, lengths as they are.

    Raises ConfigError for a folder that holds no such pairs, or too few.
    """
    config = folder / "config.yaml"
    lead = lead_of(load_config(config).recipe) if config.exists() else ""
    files = sorted(folder.glob(f"pairs/round-*-{lead}.jsonl"))
    if not files:
        raise ConfigError(f"{folder}: found no config.yaml and pairs/round-*.jsonl, expected a run")
    extra = _extra_turns(load_config(config))
    found = _Found(trajectories=[], places={})
    tasks: dict[tuple[str, str], Step] = {}
    for path in files:
        round_name = path.stem.removesuffix(f"-{lead}")
        known = _of_round(folder, round_name)
        for line in path.read_text().splitlines():
            record = json.loads(line)
            task = record["task_id"]
            expert = known.get(("expert", task, 0))
            most = extra[record["kind"]]
            limit = None if expert is None or most is None else len(expert.turns) + most
            chosen, rejected = (
                known[side["source"], task, side["sample"]] for side in (record["chosen"], record["rejected"])
            )
            if limit is not None:
                rejected = cut_turns(rejected, limit)
            pair = found.index(chosen), found.index(rejected)
            tasks.setdefault((round_name, task), []).append(pair)
    order = np.random.default_rng([SEED, 2]).permutation(len(tasks))
    groups = list(tasks.values())
    pairs = [pair for index in order for pair in groups[index]]
    if len(pairs) < steps * RUN_PAIRS:
        raise ConfigError(f"{folder}: found {len(pairs)} pairs, expected at least {steps * RUN_PAIRS}")
    every = [pairs[i * RUN_PAIRS : (i + 1) * RUN_PAIRS] for i in range(steps)]
    return PairSteps(name="of a run", trajectories=found.trajectories, steps=every)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Trajectories that pairs name, each once."""

    trajectories: list[Record]
    places: dict[tuple[str, bytes], int]

    def index(self, trajectory: Trajectory) -> int:
        key = trajectory.task_id, trajectory.tokens.tobytes()
        if key not in self.places:
            self.places[key] = len(self.trajectories)
            self.trajectories.append(
                {
                    "task": trajectory.task_id,
                    "tokens": trajectory.tokens.tolist(),
                    "mask": trajectory.agent_mask.astype(int).tolist(),
                    "prompt": int(trajectory.agent_mask.argmax()),
                }
            )
        return self.places[key]


def _of_round(folder: Path, round_name: str) -> dict[tuple[str, str, int], Trajectory]:
    """The round's trajectories and all experts by source, task and sample."""
    known = {}
    sources = {"expert": [folder / "trajectories" / "experts.parquet"]}
    for name in ("target", "failure", "hard_negatives"):
        sources[name] = sorted((folder / "trajectories" / round_name).glob(f"{name}-*.parquet"))
    for name, paths in sources.items():
        known |= {(name, one.task_id, one.sample): one for one in read_trajectories(paths)}
    return known


def needed_flops(model: Mapping[str, Any], pair_steps: PairSteps, step: Step) -> float:
    """Floating-point operations that a step of DPO needs, whatever the implementation; references excepted.

    A token that several trajectories of a task have in common, with all that stands before it, needs encoding
    once. With E such tokens, C the sum over them of the tokens that each sees, and S of them written by the
    agent:

        forward = 2 E L (D h (H + 2 K) + H h D + 3 D F)     projections and feed-forward of L layers
                + 4 C L H h                                 scores, and what they mix
                + 2 S D V                                   the head, where a log-probability is asked for
        step    = 3 forward                                 the backward pass is two such products

    Nothing is counted for what is computed again, for padding, norms, softmax and the optimizer.
    """
    encoded, context, scored = _tree_counts(
        pair_steps.trajectories[index] for index in dict.fromkeys(i for pair in step for i in pair)
    )
    D, F, V = model["hidden_size"], model["intermediate_size"], model["vocab_size"]
    L, H, K, h = (
        model[name]
        for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
    )
    dense = 2 * encoded * L * (D * h * (H + 2 * K) + H * h * D + 3 * D * F)
    return 3.0 * (dense + 4 * context * L * H * h + 2 * scored * D * V)


def _tree_counts(trajectories: Iterable[Record]) -> tuple[int, int, int]:
    """Distinct beginnings, the sum of their lengths, and how many end with a token of the agent."""
    encoded = context = scored = 0
    last: tuple[str, Sequence[int]] = "", ()
    for task, tokens, mask in sorted((one["task"], one["tokens"], one["mask"]) for one in trajectories):
        shared = 0
        if task == last[0]:
            pairs = zip(tokens, last[1], strict=False)
            shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(tokens), len(last[1])))
        encoded += len(tokens) - shared
        context += sum(range(shared + 1, len(tokens) + 1))
        scored += sum(mask[shared:])
        last = task, tokens
    return encoded, context, scored
