"""Recipes for runs that are audited, as options of the tiny run."""

import json
from typing import Any

Data = dict[str, Any]


def override(key: str, value: object) -> str:
    """An option of a run: JSON is YAML."""
    return f"{key}={json.dumps(value)}"


def explore(agent: str, into: str | None = None, mark: str = "") -> Data:
    named = ({"into": into} if into else {}) | ({"mark": mark} if mark else {})
    return {"explore": {"agent": agent} | named}


def learn(agent: str, *sources: Data, name: str | None = None) -> Data:
    return {"learn": {"agent": agent, "sources": list(sources)} | ({"name": name} if name else {})}


def evaluate(agent: str, name: str | None = None, mark: str = "") -> Data:
    named = ({"name": name} if name else {}) | ({"mark": mark} if mark else {})
    return {"evaluate": {"agent": agent} | named}


def expert_over(*of: str, **options: Any) -> Data:
    return {"pairs": "expert_over", "of": list(of), "dpo": 0.5, "sft": 0.5} | options


def better_over_worse(*of: str, **options: Any) -> Data:
    return {"pairs": "better_over_worse", "of": list(of), "dpo": 0.5, "sft": 0.5} | options


def imitate(builder: str, *of: str, weight: float, **options: Any) -> Data:
    return {"imitate": builder, "of": list(of), "weight": weight} | options


def recipe(*phases: Data) -> str:
    return override("recipe", list(phases))


def alone(*sources: Data) -> str:
    """One agent, the target, that plays and learns."""
    return recipe(explore("target"), learn("target", *sources), evaluate("target"))


SUCCESSES = imitate("successes", "target", weight=1.0)
BEST = imitate("best_rollouts", "target", weight=0.5, above=0.2)
FIRST = expert_over("target", kind="expert_target")
AMONG = {"kind": "failure_failure", "max_extra_turns": 5, "sft": 0.0}  # of the target's own failures
ALONE = alone(FIRST, better_over_worse("target", **AMONG))


def mixed(*, extra: int = 5, across: bool = False) -> str:
    """Co-evolution with imitation without a pair.

    Args:
      extra: turns that a rejected trajectory of the target's learning may have beyond its task's expert.
      across: the failure agent's pairs are of two agents.
    """
    failures = better_over_worse("target", "failure", kind="failure_failure", across=across, dpo=1.0, sft=0.0)
    return recipe(
        explore("target"),
        explore("failure"),
        learn("failure", failures),
        explore("failure", "hard_negatives"),
        learn(
            "target",
            FIRST | {"max_extra_turns": extra},
            expert_over("hard_negatives", kind="expert_failure", max_extra_turns=extra),
            better_over_worse("target", "hard_negatives", **AMONG | {"max_extra_turns": extra}),
            imitate("successes", "target", weight=0.2),
            imitate("experts", "target", weight=0.3),
        ),
        evaluate("target"),
        evaluate("failure"),
    )


FOUR = ["{task} [1]", "{task} [2]", "{task} [3]", "[Bad] {task}"]  # marks of four grades
GRADED = imitate("graded", "student", "plain", weight=1.0, marks=FOUR, bounds=[1.0, 0.5, 0.0])
# What is explored under a mark is learned under those of four grades, beside pairs without one.
MARKED = (
    recipe(
        explore("student", mark=FOUR[0]),
        explore("student", "plain"),
        learn(
            "student",
            GRADED | {"failures_per_success": 1.5, "most_repeats": 1},
            expert_over("plain"),
            imitate("experts", "plain", weight=0.2),
        ),
        evaluate("student", mark=FOUR[0]),
        evaluate("student", "worst", mark=FOUR[3]),
        evaluate("student", "unmarked"),
    ),
    *(override("explore.samples", 3), override("warm_start.epochs", 30)),
)

# Other names, agents and numbers of learnings than a shipped recipe has, by what is special about each.
RECIPES: dict[str, tuple[str, ...]] = {
    "other names": (
        recipe(
            explore("student", "homework"),
            explore("helper"),
            learn("helper", better_over_worse("homework", "helper", across=True)),
            explore("helper", "traps"),
            learn(
                "student",
                expert_over("homework", "traps", max_extra_turns=None),
                better_over_worse("traps", kind="worse_traps", max_extra_turns=0, loss="ipo"),
                imitate("experts", "traps", weight=0.4),
            ),
            evaluate("student"),
            evaluate("helper"),
        ),
        *(override("agents.student.epochs", 2), override("agents.helper.pairs_kept", "drawn")),
        override("rounds", 2),
    ),
    "three agents": (
        recipe(
            explore("target"),
            explore("failure"),
            explore("third"),
            learn("third", expert_over("third", "failure", kind="taught"), better_over_worse("failure")),
            explore("third", "after"),
            learn("failure", better_over_worse("target", "third", "failure", across=True)),
            learn("target", expert_over("after", "third"), better_over_worse("target", "after", only="all")),
            evaluate("third"),
            evaluate("target"),
        ),
        override("agents.third.keep_optimizer", True),
        override("rounds", 2),
    ),
    "successes over failures": (
        alone(
            better_over_worse("target", only="all", max_extra_turns=1),
            imitate("successes", "target", weight=0.5),
        ),
        *(override("agents.target.max_pairs_per_kind", 2), override("explore.samples", 4)),
        override("warm_start.epochs", 30),
    ),
    "grades under marks": (*MARKED, override("rounds", 2)),
    "an agent that learns twice": (
        recipe(
            explore("student"),
            learn("student", expert_over("student", sft=0.0), name="first"),
            explore("student", "again"),
            learn(
                "student",
                better_over_worse("student", "again", only="all", sft=0.0),
                expert_over("again", dpo=0.7),
                name="second",
            ),
            evaluate("student"),
        ),
        override("agents.student.reference", "warm_start"),
        *(override("rounds", 2), override("agents.student.epochs", 2)),
    ),
    "moments kept over learnings with names": (
        recipe(
            explore("student"),
            learn("student", expert_over("student"), name="first"),
            explore("student", "again"),
            learn("student", expert_over("again"), name="second"),
            evaluate("student"),
        ),
        *(override("agents.student.keep_optimizer", True), override("rounds", 2)),
    ),
    "a kind that a later learning imitates alone": (
        recipe(
            explore("student"),
            learn("student", expert_over("student"), name="first"),
            explore("student", "again"),
            learn(
                "student",
                expert_over("again", kind="other", loss="ipo"),
                expert_over("student", dpo=0.0),
                name="second",
            ),
            evaluate("student"),
        ),
    ),
}
