"""All checks by name, and the runner: one result each, whatever an environment does."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.envs.conformance import episodes, lifetimes, lists, robustness
from coevo_jax.envs.conformance.footprint import child_processes, supported
from coevo_jax.envs.conformance.probe import NotApplicable, Probe, Violation
from coevo_jax.envs.env import Env

Check = Callable[[Probe], str]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        lists.protocol,
        lists.task_lists,
        lists.task_ids,
        lists.disjoint_splits,
        lists.max_turns,
        episodes.first_observation,
        episodes.step_result,
        lists.task_order,
        episodes.rewards,
        episodes.reward_at_limit,
        episodes.endings,
        episodes.same_actions,
        episodes.same_task,
        episodes.restored_states,
        episodes.experts,
        episodes.errors,
        robustness.malformed_actions,
        robustness.answer_length,
        robustness.reset_in_mid_episode,
        robustness.next_episode_unharmed,
        robustness.step_outside_episode,
        lifetimes.close_twice,
        lifetimes.use_after_close,
        lifetimes.close_is_local,
        lifetimes.side_by_side,
        lifetimes.any_thread,
        lifetimes.faults,
        lifetimes.leaks,
        lifetimes.killed_process,
    )
}
"""Each takes a `Probe`, returns what it saw in a few words, and raises `Violation` or `NotApplicable`.

The first line of its docstring says what it verifies.
"""

_BASIC = ("protocol", "task_lists")
_PLAYABLE = (*_BASIC, "first_observation", "step_result")

NEEDS: dict[str, tuple[str, ...]] = {
    "task_lists": ("protocol",),
    **dict.fromkeys(("task_ids", "disjoint_splits", "max_turns"), _BASIC),
    **dict.fromkeys(("first_observation", "step_result"), _BASIC),
    **dict.fromkeys(("task_order", "reward_at_limit", "same_actions", "malformed_actions"), _PLAYABLE),
    **dict.fromkeys(("endings", "experts", "rewards", "answer_length"), (*_PLAYABLE, "max_turns")),
    "errors": (*_PLAYABLE, "rewards"),
    "same_task": (*_PLAYABLE, "same_actions"),
    "restored_states": (*_PLAYABLE, "same_actions", "reward_at_limit"),
    **dict.fromkeys(("reset_in_mid_episode", "close_twice", "leaks"), _PLAYABLE),
    **dict.fromkeys(("step_outside_episode", "use_after_close", "close_is_local"), _PLAYABLE),
    **dict.fromkeys(("side_by_side", "any_thread"), _PLAYABLE),
    "next_episode_unharmed": (*_PLAYABLE, "max_turns", "reset_in_mid_episode"),
    "faults": (*_PLAYABLE, "close_is_local", "any_thread"),
    "killed_process": (*_PLAYABLE, "close_is_local", "any_thread", "faults"),
}
"""Checks that mean something only where these hold: they are skipped where one of them failed."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What became of one check."""

    name: str
    sentence: str  # what the check verifies
    status: str  # "passed", "failed" or "skipped"
    message: str  # what was seen; where it failed, what was found and expected; else why it was skipped
    seconds: float


def run_checks(
    make_env: Callable[[], Env],
    *,
    tasks_per_split: int = 2,
    seed: int = 0,
    call_timeout: float = 60.0,
    only: Sequence[str] = (),
    on_result: Callable[[CheckResult], None] = lambda result: None,
) -> list[CheckResult]:
    """Examine an environment: every check, or those in `only`, in the order of `CHECKS`.

    Args:
      make_env: makes an instance; it is called many times.
      tasks_per_split: tasks played of each split, drawn by `seed`.
      call_timeout: seconds after which a call counts as hanging: the check fails.
      on_result: called after each check.

    Raises:
      ConfigError: of `make_env`, or a name in `only` that is no check.
    """
    for name in only:
        if name not in CHECKS:
            raise ConfigError(f"check: found {name!r}, expected a check{nearest(name, list(CHECKS))}")
    probe = Probe(make_env, tasks_per_split=tasks_per_split, seed=seed, call_timeout=call_timeout)
    probe.earlier_processes = frozenset(child_processes()) if supported() else frozenset()
    results: list[CheckResult] = []
    unmet: set[str] = set()
    for name in (name for name in CHECKS if not only or name in only):
        missing = [need for need in NEEDS.get(name, ()) if need in unmet]
        if missing:
            outcome = ("skipped", f"needs {missing[0]}")
        else:
            start = time.monotonic()
            outcome = _run(CHECKS[name], probe)
            probe.close_all()
            if probe.busy:
                probe = probe.successor()
        if missing or outcome[0] == "failed":
            unmet.add(name)
        seconds = 0.0 if missing else time.monotonic() - start
        results.append(_result(name, *outcome, seconds))
        on_result(results[-1])
    return results


def _result(name: str, status: str, message: str, seconds: float) -> CheckResult:
    sentence = (CHECKS[name].__doc__ or name).splitlines()[0]
    return CheckResult(name=name, sentence=sentence, status=status, message=message, seconds=seconds)


def _run(check: Check, probe: Probe) -> tuple[str, str]:
    """Status and message of one check, run in a thread that is left behind if the environment hangs."""
    outcome: list[tuple[str, str]] = []
    refused: list[ConfigError] = []

    def work() -> None:
        try:
            outcome.append(("passed", check(probe)))
        except NotApplicable as reason:
            outcome.append(("skipped", f"not applicable: {reason}"))
        except Violation as violation:
            if isinstance(violation.__cause__, ConfigError):
                refused.append(violation.__cause__)
            outcome.append(("failed", str(violation)))
        except Exception as error:  # what an earlier, failed check would have told
            outcome.append(("failed", f"broke off with {type(error).__name__}: {error}"))

    thread = threading.Thread(target=work, daemon=True, name=f"check-{check.__name__}")
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        hanging = probe.overdue()
        if hanging and thread.is_alive():
            return "failed", f"{hanging}: no answer within {probe.call_timeout:g} s"
    if refused:
        raise refused[0]
    return outcome[0]
