"""Small, realistic run folders: agents of a recipe, rounds, metrics, trajectories, experts and pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.data.parquet import shard_name, write_trajectories
from coevo_jax.episode_stats.summary import detect_collapse, summarize
from coevo_jax.run_folder.metrics import MetricsLog
from coevo_jax.run_folder.results import Results, ResultsFile
from coevo_jax.trajectory import Ending, Trajectory, Turn

BETTER = {"pairs": "better_over_worse", "kind": "failure_failure"}
COEVO = [
    {"explore": {"agent": "target", "into": None}},
    {"explore": {"agent": "failure", "into": None}},
    {"learn": {"agent": "failure", "name": None, "sources": [{**BETTER, "of": ["target", "failure"]}]}},
    {"explore": {"agent": "failure", "into": "hard_negatives"}},
    {
        "learn": {
            "agent": "target",
            "name": None,
            "sources": [
                {"pairs": "expert_over", "kind": "expert_target", "of": ["target"]},
                {"pairs": "expert_over", "kind": "expert_failure", "of": ["hard_negatives"]},
                {**BETTER, "of": ["target", "hard_negatives"]},
            ],
        }
    },
    {"evaluate": {"agent": "target"}},
    {"evaluate": {"agent": "failure"}},
]
ALONE = [
    {"explore": {"agent": "target", "into": None}},
    {
        "learn": {
            "agent": "target",
            "name": None,
            "sources": [{"pairs": "expert_over", "kind": "expert_target", "of": ["target"]}],
        }
    },
    {"evaluate": {"agent": "target"}},
]
"""What the runs of every other method than coevo do."""
THREE = [
    {"explore": {"agent": "student", "into": "first_tries"}},
    {"explore": {"agent": "helper", "into": None}},
    {"explore": {"agent": "second_critic", "into": "near_misses"}},
    {
        "learn": {
            "agent": "second_critic",
            "name": None,
            "sources": [
                {"pairs": "better_over_worse", "kind": "less_wrong", "of": ["helper", "near_misses"]}
            ],
        }
    },
    {
        "learn": {
            "agent": "student",
            "name": "from_experts",
            "sources": [{"pairs": "expert_over", "kind": None, "of": ["first_tries"]}],
        }
    },
    {
        "learn": {
            "agent": "student",
            "name": None,
            "sources": [{"pairs": "expert_over", "kind": "expert_near", "of": ["near_misses"]}],
        }
    },
    {"evaluate": {"agent": "student"}},
    {"evaluate": {"agent": "helper"}},
    {"evaluate": {"agent": "second_critic"}},
]
"""Agents, collections, a learning and kinds with names of their own; one kind has its builder's."""


_OPTIONS = {"loss": "sigmoid", "learning_rate": [1e-4], "reference": "round_start"}


def play(task: int, agent: str, rng: np.random.Generator, skill: float) -> Trajectory:
    """One made-up SQL episode; the reward grows with skill."""
    table = ("visits", "patients", "rooms", "drugs")[task % 4]
    actions = [f"SELECT COUNT(*) FROM {table} WHERE year = {2000 + rng.integers(0, 24)}"]
    actions = ["SHOW TABLES", f"DESCRIBE {table}", *actions, "submit"][int(rng.integers(0, 3)) :]
    solved = agent == "expert" or rng.random() < skill
    reward = 1.0 if solved else float(np.round(rng.beta(1 + 3 * skill, 2), 2)) * 0.99
    ending = Ending.SOLVED if solved else list(Ending)[int(rng.choice([1, 1, 1, 2, 3]))]
    if agent != "expert" and rng.random() < 0.01:
        ending, reward = Ending.FAULT, 0.0
    if agent != "expert" and rng.random() < 0.3:
        place = int(rng.integers(0, len(actions)))
        actions[place:place] = ["SELEC"] * int(rng.integers(1, 3))
    turns = tuple(
        Turn(
            response=f"Thought: I look at {table} now, step {i + 1}.\nAction: {action}",
            action=action,
            observation=f"[({int(rng.integers(0, 999))},)]"
            if "COUNT" in action
            else "Invalid action: no SQL."
            if action == "SELEC"
            else f"{table}: id, year, name",
        )
        for i, action in enumerate(actions)
    )
    length = 24 + 11 * len(turns)
    return Trajectory(
        task_id=f"clinic_{task % 7:02d}/{task}",
        agent=agent,
        sample=0,
        prompt=f"Database clinic_{task % 7:02d}.\nQuestion {task}: how many {table} were there that year?",
        turns=turns,
        reward=reward,
        ending=ending,
        tokens=np.arange(length, dtype=np.int32),
        agent_mask=(np.arange(length) >= 24) & ((np.arange(length) - 24) % 11 < 7),
        logps=np.zeros(length, np.float32),
    )


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    method: str = "coevo",
    rounds: int = 3,
    tasks: int = 60,
    recipe: Any = None,
) -> Path:
    """Write a whole run folder; only method coevo has a failure agent, unless a recipe is given."""
    recipe = recipe or (COEVO if method == "coevo" else ALONE)
    rng = np.random.default_rng([seed, len(method)])
    gain = {"coevo": 0.13, "eto": 0.1}.get(method, 0.05)
    results = empty_results(folder.name, method, seed, rounds, recipe)
    experts = [play(task, "expert", rng, 1.0) for task in range(tasks)]
    write_trajectories(folder / "trajectories/experts.parquet", experts)
    for agent in results["agents"]:
        _evaluate(folder, results, 0, agent, [play(1000 + t, agent, rng, 0.3) for t in range(tasks)])
    for number in range(1, rounds + 1):
        explored: dict[str, list[Trajectory]] = {}
        for kind, options in (item for phase in recipe for item in phase.items()):
            agent = options["agent"]
            if kind == "explore":
                name = options["into"] or agent
                explored[name] = [play(t, agent, rng, 0.3 + gain * number * 0.8) for t in range(tasks)]
                _explore(folder, results, number, name, explored[name])
            elif kind == "learn":
                write_pairs(folder, results, number, options, explored)
                pull = {"preference": 0.25, "sft": 1.0 if agent == results["agents"][0] else 0.0}
                results["pulls"].append({"round": number, "agent": agent, **pull})
                name = f"round-{number:02d}/learn_{options['name'] or agent}"
                results["phases"].append({"name": name, "seconds": 120.5})
            else:
                noise = 0.03 * rng.standard_normal()
                leads = agent == results["agents"][0]
                skill = 0.3 + gain * number + noise if leads else 0.3 - 0.09 * number
                played = [play(1000 + t, agent, rng, skill) for t in range(tasks)]
                _evaluate(folder, results, number, agent, played)
    write_metrics(folder / "metrics.jsonl", rounds, recipe, rng)
    results["seconds"] = 17.0 + sum(phase["seconds"] for phase in results["phases"])
    ResultsFile(folder).save(results)
    return folder


def _explore(folder: Path, results: Results, number: int, name: str, played: list[Trajectory]) -> None:
    place = f"round-{number:02d}"
    write_trajectories(folder / "trajectories" / place / shard_name(name, 0, 1), played)
    summary = summarize(played, hard_negative_threshold=0.6, seed=results["seed"])
    entry = {"round": number, "phase": f"explore_{name}", "agent": played[0].agent}
    results["explorations"].append({**entry, **summary})
    results["phases"].append({"name": f"{place}/explore_{name}", "seconds": 41.0 + 3 * number})


def _evaluate(folder: Path, results: Results, number: int, agent: str, played: list[Trajectory]) -> None:
    place = f"round-{number:02d}"
    write_trajectories(folder / "trajectories" / place / shard_name(f"eval-{agent}", 0, 1), played)
    summary = summarize(played, hard_negative_threshold=0.6, seed=results["seed"])
    results["evaluations"].append({"round": number, "agent": agent, "split": "test", **summary})
    start = next(e for e in results["evaluations"] if e["agent"] == agent)
    leads = agent == results["agents"][0]
    if why := detect_collapse(summary, None, start, makes_negatives=not leads):
        results["collapses"].append({"round": number, "agent": agent, "why": why})
    if number or leads:
        results["phases"].append({"name": f"{place}/evaluate_{agent}", "seconds": 63.0})


def empty_results(name: str, method: str, seed: int, rounds: int, recipe: Any = None) -> Results:
    """The record of a run that has done nothing yet."""
    agents = list(dict.fromkeys(options["agent"] for phase in recipe or COEVO for options in phase.values()))
    config = {
        "name": name,
        "explore": {"tasks": "300:900", "samples": 1, "temperature": 1.0},
        "recipe": recipe or COEVO,
        "agents": {agent: _OPTIONS | {"beta": [0.1, 0.5 + i]} for i, agent in enumerate(agents)},
    }
    return Results(
        name=name,
        method=method,
        seed=seed,
        env="intercode_sql",
        config=config,
        agents=agents,
        parameters=1_183_872,
        rounds=rounds,
        evaluations=[],
        explorations=[],
        pairs=[],
        pulls=[],
        collapses=[],
        phases=[],
        seconds=0.0,
        peak_memory_bytes=1_610_612_736,
        environment={"jax": "0.10.2", "devices": ["cpu:0"]},
    )


def write_pairs(folder: Path, results: Results, number: int, learn: Any, explored: dict) -> None:
    """Write the pairs of one learning and count them in the results."""
    lines = []
    for source in learn["sources"]:
        kind = source["kind"] or source["pairs"]
        for task, record in enumerate(explored[source["of"][0]]):
            sides = [n for n in source["of"] if explored[n][task].failure]
            if source["pairs"] == "expert_over":
                lines += [(record.task_id, kind, "expert", name) for name in sides]
            elif len(sides) > 1:
                worse, better = sorted(sides[:2], key=lambda n: explored[n][task].reward)
                lines.append((record.task_id, kind, better, worse))
    path = folder / f"pairs/round-{number:02d}-{learn['name'] or learn['agent']}.jsonl"
    path.parent.mkdir(exist_ok=True)
    text = [
        json.dumps(
            {
                "task_id": task,
                "kind": kind,
                "chosen": {"source": chosen, "sample": 0},
                "rejected": {"source": rejected, "sample": 0},
            }
        )
        for task, kind, chosen, rejected in lines
    ]
    path.write_text("".join(f"{line}\n" for line in text))
    for kind in dict.fromkeys(kind for _, kind, _, _ in lines):
        tasks = [task for task, k, _, _ in lines if k == kind]
        row = {"count": len(tasks), "tasks": len(set(tasks)), "mean_reward_gap": 0.31}
        results["pairs"].append({"round": number, "agent": learn["agent"], "kind": kind, **row})


def write_metrics(path: Path, rounds: int, recipe: Any, rng: np.random.Generator) -> None:
    """Write plausible curves: losses fall, margins grow, every phase counts its steps from 1."""
    with MetricsLog(path) as log:
        for step in range(1, 61):
            noise = 0.05 * rng.standard_normal()
            log.write(step, "warm_start", {"warm_start/loss": 2.5 * np.exp(-step / 25) + noise})
        for number in range(1, rounds + 1):
            for learn in (phase["learn"] for phase in recipe if "learn" in phase):
                kinds = [source["kind"] or source["pairs"] for source in learn["sources"]]
                phase = f"round-{number:02d}/learn_{learn['name'] or learn['agent']}"
                for step in range(1, 41):
                    log.write(step, phase, _metrics(learn["agent"], kinds, step, rng))


def _metrics(agent: str, kinds: list[str], step: int, rng: np.random.Generator) -> dict[str, float]:
    noise = 0.04 * rng.standard_normal(8)
    margin = 0.05 * step + 4 * noise[0]
    values = {
        "loss": 0.9 - 0.01 * step + noise[1],
        "loss/preference": 0.65 - 0.008 * step + noise[2],
        "loss/sft": 0.25 - 0.002 * step + noise[3],
        "rewards/chosen": 0.02 * step + noise[4],
        "rewards/rejected": -0.03 * step + noise[5],
        "rewards/margins": margin,
        "rewards/accuracies": min(1.0, 0.5 + 0.01 * step + noise[6]),
        "logps/chosen": -20 + 0.05 * step + 5 * noise[7],
        "logps/rejected": -25 - 0.1 * step + 5 * noise[1],
        "grad_norm": 1 + noise[2],
    }
    for index, kind in enumerate(kinds):
        values[f"rewards/margins/{kind}"] = margin + 0.3 * (index - 1) + 4 * noise[index]
        values[f"rewards/accuracies/{kind}"] = min(1.0, values["rewards/accuracies"] + 0.05 * (index - 1))
    return {f"{agent}/{name}": float(value) for name, value in values.items()}
