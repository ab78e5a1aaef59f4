"""A small, realistic run folder: two agents, three rounds, metrics, trajectories, experts and pairs."""

import json
from pathlib import Path

import numpy as np

from coevo_jax.data.parquet import shard_name, write_trajectories
from coevo_jax.episode_stats.summary import detect_collapse, summarize
from coevo_jax.run_folder.metrics import MetricsLog
from coevo_jax.run_folder.results import Results, save_results
from coevo_jax.trajectory import Ending, Trajectory, Turn

SOURCES = {"target": "target", "failure": "failure", "hard_negatives": "failure"}
KINDS = ("expert_target", "expert_failure", "failure_failure")


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


def make_run(folder: Path, *, seed: int = 0, method: str = "coevo", rounds: int = 3, tasks: int = 60) -> Path:
    """Write a whole run folder; only method coevo has a failure agent."""
    rng = np.random.default_rng([seed, len(method)])
    gain = {"coevo": 0.13, "eto": 0.1}.get(method, 0.05)
    agents = ("target", "failure") if method == "coevo" else ("target",)
    sources = SOURCES if method == "coevo" else {"target": "target"}
    results = empty_results(folder.name, method, seed, rounds)
    experts = [play(task, "expert", rng, 1.0) for task in range(tasks)]
    write_trajectories(folder / "trajectories/experts.parquet", experts)
    start = None
    for number in range(rounds + 1):
        place = folder / f"trajectories/round-{number:02d}"
        if number:
            explored = {}
            for name, agent in sources.items():
                explored[name] = [play(t, agent, rng, 0.3 + gain * number * 0.8) for t in range(tasks)]
                write_trajectories(place / shard_name(name, 0, 1), explored[name])
                phase = f"explore_{name}"
                summary = summarize(explored[name], hard_negative_threshold=0.6, seed=seed)
                results["explorations"].append({"round": number, "phase": phase, "agent": agent, **summary})
                results["phases"].append(
                    {"name": f"round-{number:02d}/{phase}", "seconds": 41.0 + 3 * number}
                )
            for agent in agents:
                write_pairs(folder, results, number, agent, explored)
                pull = {"preference": 0.25, "sft": 1.0 if agent == "target" else 0.0}
                results["pulls"].append({"round": number, "agent": agent, **pull})
                results["phases"].append({"name": f"round-{number:02d}/learn_{agent}", "seconds": 120.5})
        for agent in agents:
            noise = 0.03 * rng.standard_normal()
            skill = 0.3 + gain * number + noise if agent == "target" else 0.3 - 0.09 * number
            records = [play(1000 + t, agent, rng, skill) for t in range(tasks)]
            write_trajectories(place / shard_name(f"eval-{agent}", 0, 1), records)
            summary = summarize(records, hard_negative_threshold=0.6, seed=seed)
            start = start or summary
            results["evaluations"].append({"round": number, "agent": agent, "split": "test", **summary})
            why = detect_collapse(summary, None, start, agent=agent)
            if why:
                results["collapses"].append({"round": number, "agent": agent, "why": why})
        results["phases"].append({"name": f"round-{number:02d}/evaluate", "seconds": 63.0})
    write_metrics(folder / "metrics.jsonl", rounds, agents, rng)
    save_results(folder, results)
    return folder


def empty_results(name: str, method: str, seed: int, rounds: int) -> Results:
    """The record of a run that has done nothing yet."""
    config = {
        "name": name,
        "explore": {"tasks": "300:900", "samples": 1, "temperature": 1.0},
        "target": {
            "loss": "sigmoid",
            "beta": [0.1, 0.5],
            "learning_rate": [1e-4],
            "reference": "round_start",
        },
    }
    return Results(
        name=name,
        method=method,
        seed=seed,
        env="intercode_sql",
        config=config,
        parameters=1_183_872,
        rounds=rounds,
        evaluations=[],
        explorations=[],
        pairs=[],
        pulls=[],
        collapses=[],
        phases=[],
        peak_memory_bytes=1_610_612_736,
        environment={"jax": "0.10.2", "devices": ["cpu:0"]},
    )


def write_pairs(folder: Path, results: Results, number: int, agent: str, explored: dict) -> None:
    """Write the pairs of one learner and count them in the results."""
    lines = []
    for task, record in enumerate(explored["target"]):
        sides = [n for n in explored if explored[n][task].failure]
        for name in sides if agent == "target" else ():
            kind = "expert_target" if name == "target" else "expert_failure"
            lines.append((record.task_id, kind, "expert", name))
        if len(sides) > 1:
            worse, better = sorted(sides[:2], key=lambda n: explored[n][task].reward)
            lines.append((record.task_id, "failure_failure", better, worse))
    path = folder / f"pairs/round-{number:02d}-{agent}.jsonl"
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
    for kind in KINDS:
        tasks = [task for task, k, _, _ in lines if k == kind]
        if tasks:
            row = {"count": len(tasks), "tasks": len(set(tasks)), "mean_reward_gap": 0.31}
            results["pairs"].append({"round": number, "agent": agent, "kind": kind, **row})


def write_metrics(path: Path, rounds: int, agents: tuple[str, ...], rng: np.random.Generator) -> None:
    """Write plausible curves: losses fall, margins grow, every phase counts its steps from 1."""
    with MetricsLog(path) as log:
        for step in range(1, 61):
            noise = 0.05 * rng.standard_normal()
            log.write(step, "warm_start", {"warm_start/loss": 2.5 * np.exp(-step / 25) + noise})
        for number in range(1, rounds + 1):
            for agent in agents:
                for step in range(1, 41):
                    log.write(step, f"round-{number:02d}/learn_{agent}", _metrics(agent, step, rng))


def _metrics(agent: str, step: int, rng: np.random.Generator) -> dict[str, float]:
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
    for index, kind in enumerate(KINDS if agent == "target" else KINDS[2:]):
        values[f"rewards/margins/{kind}"] = margin + 0.3 * (index - 1) + 4 * noise[index]
        values[f"rewards/accuracies/{kind}"] = min(1.0, values["rewards/accuracies"] + 0.05 * (index - 1))
    return {f"{agent}/{name}": float(value) for name, value in values.items()}
