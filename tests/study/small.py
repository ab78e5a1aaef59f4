"""A study small enough for a test: configs on the letters environment, and rows that no run has made."""

from pathlib import Path
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from tests.tiny import CONFIG

# What is tiny, without its name and recipe. The environment by its place: workers are processes of their own.
COMMON = (
    CONFIG[: CONFIG.index("recipe:")]
    .replace("name: tiny\n", "")
    .replace("{name: letters}", "{name: 'tests.letters_env:make_letters'}")
    .replace("epochs: 10", "epochs: 3")
    + "agents: {target: {epochs: 1}, failure: {epochs: 1}}\n"
    + "evaluate: {split: dev}\n"
    + "checkpoint: {every_steps: 3, keep: all}\n"
)
METHODS = {
    "sft": "recipe: sft\nrounds: 0\n",
    "eto": "recipe: eto\n",
    "sft-more": "recipe: sft-more\n",
    "coevo": "recipe: coevo\n",
    "eto-compute": "recipe: eto\nexplore: {samples: 9}\n"
    "budget: {run: runs/small-coevo, match: [explored_tokens, learned_tokens]}\n",
}


def write_configs(folder: Path, *methods: str, **changed: str) -> dict[str, Path]:
    """The config files of some methods; `changed` adds lines to a method's (sft_more is sft-more)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "common.yaml").write_text(COMMON)
    paths = {}
    for method in methods:
        paths[method] = folder / f"small-{method}.yaml"
        more = changed.get(method.replace("-", "_"), "")
        text = f"extends: common.yaml\nname: small-{method}\nmethod: {method}\n{METHODS[method]}{more}"
        paths[method].write_text(text)
    return paths


def configs(folder: Path, *methods: str, **changed: str) -> dict[str, Config]:
    """The same, read: by their files."""
    paths = write_configs(folder, *methods, **changed)
    return {str(path): load_config(path) for path in paths.values()}


def made_row(method: str, seed: int, rewards: list[float | None], **changed: Any) -> dict[str, Any]:
    """A row of a finished run of two rounds, whose lead earned these rewards at the end."""
    played = [reward for reward in rewards if reward is not None]
    mean = sum(played) / len(played)

    def summary(reward: float) -> dict[str, Any]:
        solved = sum(one >= 1 for one in played)
        histogram = [0] * 11
        histogram[0], histogram[6], histogram[10] = 1, len(played) - solved - 1, solved
        return {
            "n": len(rewards),
            "faults": len(rewards) - len(played),
            "mean_reward": reward,
            "success_rate": solved / len(played),
            "histogram": histogram,
            "endings": {"solved": solved, "failed": len(played) - solved, "token_limit": 0},
            "failure_count": len(played) - solved,
            "mean_failure_reward": 0.5,
            "hard_negative_share": 0.25,
            "hard_negative_share_of_failures": 0.5,
            "diversity": {"distinct_sequences": 0.75, "distinct_bigrams": 0.5, "duplicates": 0.125},
            "after_error": {
                "episodes": 2,
                "recovered": 1,
                "repeated": 0,
                "gave_up": 1,
                "went_on": 0,
                "cut_off": 0,
                "successes": 1,
                "success_rate": 0.5,
                "failure_tokens_behind": 0.25,
            },
        }

    agents = ["target", "failure"] if method == "coevo" else ["target"]
    evaluations = [{"round": 0, "agent": "target", **summary(0.25), "tasks": "t", "rewards": rewards}]
    explorations = []
    for number in (1, 2):
        evaluations += [
            {"round": number, "agent": agent, **summary(mean), "tasks": "t", "rewards": rewards}
            for agent in agents
        ]
        explorations.append({"round": number, "agent": "target", "phase": "explore_target", **summary(0.5)})
        for place, phase in enumerate(
            ("explore_failure", "explore_hard_negatives") if len(agents) > 1 else ()
        ):
            own = summary(0.125 * (number + place))
            explorations.append({"round": number, "agent": "failure", "phase": phase, **own})
    row = {
        "study": "small",
        "method": method,
        "seed": seed,
        "status": "finished",
        "why": None,
        "config": f"digest of {method}",
        "base": "b" * 64,
        "commit": "c" * 40,
        "dirty": False,
        "date": f"2026-01-0{1 + seed}T00:00:00Z",
        "machine": {"cpu": "a processor", "cores": 2, "cores_used": 1},
        "agents": agents,
        "rounds": 2,
        "evaluations": evaluations,
        "explorations": explorations,
        "pairs": [],
        "learnings": [
            {
                "round": 1,
                "agent": "target",
                "steps": 4,
                "learned_tokens": 50,
                "pull": {"preference": 2, "sft": 1},
            }
        ],
        "cost": {
            "rollouts": 1000,
            "explored_tokens": 20_000,
            "learned_tokens": 50,
            "steps": 4,
            "seconds": 60.0 + 30 * seed,
        },
        "audit": {"held": 50, "broken": 0, "not_checkable": 1, "words": "50 held, 0 broken, 1 not checkable"},
        "how": "made",
        "spent": {"seconds": 1.0, "cpu_seconds": 1.0},
    }
    return row | changed
