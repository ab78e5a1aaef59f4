"""The phases that a config asks for, by METHOD's loop: who plays and learns, when, under which name."""

from dataclasses import dataclass
from typing import Literal

from coevo_jax.audit.reading import RunFiles
from coevo_jax.config.options import Config, LearnConfig


@dataclass(frozen=True, kw_only=True)
class Phase:
    name: str
    kind: Literal["prepare", "warm_start", "explore", "learn", "evaluate"]
    round: int = 0
    agent: str = "target"
    collection: str = ""  # what the shards of a phase that plays are called

    @property
    def plan(self) -> str:
        """The path of what a learning phase's steps learned from."""
        return "plans/warm-start.json" if self.kind == "warm_start" else f"plans/{self.stem}.json"

    @property
    def pairs(self) -> str:
        return f"pairs/{self.stem}.jsonl"

    @property
    def stem(self) -> str:
        return f"round-{self.round:02d}-{self.agent}"


def expected_phases(config: Config) -> list[Phase]:
    """METHOD, "The loop", steps 1 to 6."""
    phases = [
        Phase(name="prepare", kind="prepare"),
        Phase(name="warm_start", kind="warm_start"),
        _plays("evaluate", 0, "target"),
    ]
    second = config.failure.explore
    for number in range(1, config.rounds + 1):
        phases.append(_plays("explore", number, "target"))
        if second:
            phases.append(_plays("explore", number, "failure"))
            phases += [_learns(number, "failure")] if config.failure.learn else []
            phases.append(_plays("explore", number, "failure", "hard_negatives"))
        phases += [_learns(number, "target"), _plays("evaluate", number, "target")]
        if second and config.evaluate.failure_agent:
            phases.append(_plays("evaluate", number, "failure"))
    return phases


def finished(files: RunFiles, *kinds: str) -> list[Phase]:
    """The expected phases of these kinds that are finished."""
    return [p for p in expected_phases(files.config) if p.kind in kinds and p.name in files.records]


def learn_options(config: Config, phase: Phase) -> LearnConfig:
    return config.target if phase.agent == "target" else config.failure


def asked_of(config: Config, phase: Phase, name: str) -> int | None:
    """The total of pairs, explored_tokens or learned_tokens that a phase has to reach; None without one."""
    totals = dict(config.budget)[name]
    return totals[phase.round - 1] if phase.agent == "target" and phase.round and totals else None


def _plays(kind: Literal["explore", "evaluate"], number: int, agent: str, what: str = "") -> Phase:
    collection = f"eval-{agent}" if kind == "evaluate" else what or agent
    name = f"round-{number:02d}/{kind}_{what or agent}"
    return Phase(name=name, kind=kind, round=number, agent=agent, collection=collection)


def _learns(number: int, agent: str) -> Phase:
    return Phase(name=f"round-{number:02d}/learn_{agent}", kind="learn", round=number, agent=agent)
