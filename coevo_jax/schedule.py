"""The phases of a run, in order, as a function of its config.

A method is a config: there is no branch on its name.
"""

from dataclasses import dataclass

from coevo_jax.config.options import Config


@dataclass(frozen=True, kw_only=True)
class Phase:
    kind: str  # key of PHASES
    name: str  # e.g. "round-01/learn_failure"
    round: int  # 0 is the warm start
    agent: str  # "target" or "failure"
    index: int  # place in the schedule: part of every random key of the phase

    def seed(self, root: int) -> int:
        """Seed of the host's randomness in this phase."""
        return root * 10_007 + self.index


def schedule(config: Config) -> tuple[Phase, ...]:
    """Every phase of a run after `prepare`, in order (METHOD's steps 1 to 6)."""
    plan: list[tuple[str, str, int, str]] = [("warm_start", "warm_start", 0, "target")]
    plan.append(("evaluate", "evaluate_target", 0, "target"))
    for number in range(1, config.rounds + 1):
        plan.append(("explore", "explore_target", number, "target"))
        if config.failure.explore:
            plan.append(("explore", "explore_failure", number, "failure"))
            if config.failure.learn:
                plan.append(("learn", "learn_failure", number, "failure"))
            plan.append(("explore", "explore_hard_negatives", number, "failure"))
        plan.append(("learn", "learn_target", number, "target"))
        plan.append(("evaluate", "evaluate_target", number, "target"))
        if config.failure.explore and config.evaluate.failure_agent:
            plan.append(("evaluate", "evaluate_failure", number, "failure"))
    return tuple(
        Phase(
            kind=kind,
            name=name if name == "warm_start" else f"round-{number:02d}/{name}",
            round=number,
            agent=agent,
            index=index,
        )
        for index, (kind, name, number, agent) in enumerate(plan)
    )


def find_phase(config: Config, name: str) -> Phase:
    """The phase of a name.

    Raises:
      KeyError: the config schedules no such phase.
    """
    phases = {phase.name: phase for phase in schedule(config)}
    return phases[name]


def explored_together(config: Config, phase: Phase) -> tuple[Phase, ...]:
    """The target's and the failure agent's exploration at a round's start, if `phase` is one of the two and
    they are played together; otherwise nothing."""
    pair = tuple(
        other
        for other in schedule(config)
        if other.round == phase.round and other.name.endswith(("/explore_target", "/explore_failure"))
    )
    return pair if config.explore.together and len(pair) == 2 and phase in pair else ()
