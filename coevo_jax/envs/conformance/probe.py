"""What the checks play with: instances, sampled tasks, experts, sequences of actions, and a comparison."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from coevo_jax.config.streams import stream
from coevo_jax.envs.conformance.actions import MALFORMED, destroying, perturbed
from coevo_jax.envs.env import (
    SPLITS,
    Env,
    LimitsInstances,
    PreparesExperts,
    StepResult,
    Task,
    TriesActions,
)
from coevo_jax.envs.same_task import meant_actions
from coevo_jax.trajectory import Demonstration

T = TypeVar("T")
RANDOM_TURNS = 25  # most turns of an episode of random actions
MALFORMED_SHARE = 0.15  # of the actions of such an episode
CLOSE_SECONDS = 10.0  # how long instances may take to close before they are left to themselves


class Violation(Exception):
    """What a check found: the message says what was found and expected, at which task and action."""


class EnvRaised(Violation):
    """The environment raised an exception where none is allowed."""


class NotApplicable(Exception):
    """There is nothing to check in this environment, and why."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One episode: what was done and what came of it."""

    task: Task
    prompt: str
    actions: tuple[str, ...]  # those that were played
    results: tuple[StepResult, ...]
    reward: float  # of the end, or at the limit where nothing ended the episode

    @property
    def done(self) -> bool:
        return bool(self.results) and self.results[-1].done


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A task's solution, played by a fresh instance."""

    played: Played
    seconds: float  # that making the instance and playing took


class Probe:
    """The environment under examination. Every call of it goes through `call`, which knows what it was."""

    def __init__(self, make_env: Callable[[], Env], *, tasks_per_split: int, seed: int, call_timeout: float):
        self.make_env = make_env
        self.tasks_per_split, self.seed, self.call_timeout = tasks_per_split, seed, call_timeout
        self.turns, self.episodes = 0, 0  # played since the last `close_all`
        self._running: dict[int, tuple[str, float]] = {}  # by thread: the call it is in, and since when
        self._open: list[Env] = []
        self._sample: tuple[Task, ...] = ()
        self._experts: dict[str, Demonstration | None] = {}
        self._deterministic: bool | None = None
        self._references: dict[str, Reference] = {}  # by task id
        self._stopped = False
        self._lock = threading.Lock()
        self.earlier_processes: frozenset[int] = frozenset()  # running before the first check

    def call(self, words: str, function: Callable[[], T]) -> T:
        """Call the environment; `words` name the call.

        Raises:
          EnvRaised: the environment raised, or the check was broken off.
        """
        if self._stopped:
            raise EnvRaised(f"{words}: the check was broken off")
        thread = threading.get_ident()
        self._running[thread] = (words, time.monotonic())
        try:
            return function()
        except Exception as error:
            raise EnvRaised(f"{words} raised {type(error).__name__}: {error}") from error
        finally:
            del self._running[thread]

    @property
    def busy(self) -> bool:
        """Whether a call has not returned yet."""
        return bool(self._running)

    def overdue(self) -> str | None:
        """Words of a call that has been running for longer than `call_timeout`."""
        latest = time.monotonic() - self.call_timeout
        return next((words for words, since in list(self._running.values()) if since < latest), None)

    def successor(self) -> "Probe":
        """A probe that goes on with the same tasks, while this one's hanging threads can call no more."""
        probe = Probe(
            self.make_env,
            tasks_per_split=self.tasks_per_split,
            seed=self.seed,
            call_timeout=self.call_timeout,
        )
        probe.earlier_processes, probe._sample, probe._experts, probe._deterministic, probe._references = (
            self.earlier_processes,
            self._sample,
            self._experts,
            self._deterministic,
            self._references,
        )
        self._stopped = True
        return probe

    def open(self) -> Env:
        """A new instance, closed after the check."""
        env = self.call("making an instance", self.make_env)
        with self._lock:
            self._open.append(env)
        return env

    def close_all(self) -> None:
        """Close the check's instances, each in a thread of its own: one that hangs is left behind."""
        threads = [threading.Thread(target=_close, args=(env,), daemon=True) for env in self._open]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._open.clear()
        self.turns, self.episodes = 0, 0

    @property
    def deterministic(self) -> bool:
        if self._deterministic is None:
            self._deterministic = bool(self.open().deterministic)
        return self._deterministic

    def sample(self) -> tuple[Task, ...]:
        """Some tasks of every split, drawn by the seed; the same ones for all checks."""
        if not self._sample:
            env, chosen = self.open(), []
            for place, split in enumerate(SPLITS):
                tasks = self.call(f"tasks({split!r})", lambda split=split: list(env.tasks(split)))
                rng = stream("conformance order", self.seed, place)
                indices = rng.choice(len(tasks), min(self.tasks_per_split, len(tasks)), replace=False)
                chosen += [tasks[index] for index in sorted(indices)]
            self._sample = tuple(chosen)
            self._experts = self._ask_experts(env)
        return self._sample

    def _ask_experts(self, env: Env) -> dict[str, Demonstration | None]:
        if isinstance(env, PreparesExperts):
            env.prepare_experts(self._sample, lambda done, total: None)
        found: dict[str, Demonstration | None] = {}
        for task in self._sample:
            try:
                found[task.id] = self.call(f"expert of {task.id}", lambda task=task: env.expert(task))
            except EnvRaised:
                found[task.id] = None  # the check `experts` asks again and tells
        return found

    def expert(self, task: Task) -> Demonstration | None:
        """The expert of a sampled task, asked for once, before any episode."""
        self.sample()
        return self._experts.get(task.id)

    def solution(self, task: Task) -> tuple[str, ...]:
        """A fixed sequence of sensible actions: the expert's, or random ones where there is none."""
        expert = self.expert(task)
        if isinstance(expert, Demonstration) and expert.turns:
            return tuple(turn.action for turn in expert.turns)
        return self.random_actions(task, malformed=False)

    def random_actions(
        self, task: Task, *, malformed: bool = True, turns: int = RANDOM_TURNS
    ) -> tuple[str, ...]:
        """Actions of all experts, as they are and changed, with malformed ones between."""
        rng = stream(f"conformance {task.id}", self.seed, turns)
        known = [turn.action for one in self.sample() for turn in getattr(self.expert(one), "turns", ())]
        known = known or self._tried(task)
        actions = []
        for _ in range(turns):
            action = known[rng.integers(len(known))]
            if malformed and rng.random() < MALFORMED_SHARE:
                action = list(MALFORMED.values())[rng.integers(len(MALFORMED))]
            elif rng.random() < 0.5:
                action = perturbed(action, rng)
            actions.append(action)
        return tuple(actions)

    def _tried(self, task: Task) -> list[str]:
        """What the environment tries where there is no expert; else words that any might know."""
        env = self.open()
        if not isinstance(env, TriesActions):
            return ["look", "help", "1"]
        rng, tries = stream(f"conformance tries {task.id}", self.seed), env.tries
        return [self.call("tries", lambda: tries(task, rng)) for _ in range(RANDOM_TURNS)]

    def meant_actions(self, task: Task, prompt: str) -> tuple[str, ...]:
        """The expert's actions, or where there is none all that may mean something to the task."""
        expert = self.expert(task)
        if isinstance(expert, Demonstration) and expert.turns:
            return tuple(turn.action for turn in expert.turns)
        env, rng = self.open(), stream(f"conformance meant {task.id}", self.seed)
        return self.call("tries", lambda: meant_actions(env, task, prompt, rng))

    def most_instances(self, wanted: int) -> int:
        """How many instances may play beside each other; all others are closed before this is asked.

        Raises:
          NotApplicable: fewer than are wanted.
        """
        env = self.open()
        if isinstance(env, LimitsInstances):
            self.close_all()
            most = self.call(f"most_instances({wanted})", lambda: env.most_instances(wanted))
            if most < wanted:
                raise NotApplicable(f"only {most} can play at a time, {wanted} would have to")
        return wanted

    def hostile_actions(self, task: Task) -> tuple[str, ...]:
        """Every malformed action, and those that try to write where the expert only reads."""
        return (*MALFORMED.values(), *destroying(self.solution(task)))

    def reference(self, task: Task) -> "Reference":
        """The task's solution as the first episode of a fresh instance plays it, played once for all checks.

        Starting an instance may take most of a check's time.
        """
        if task.id not in self._references:
            start = time.monotonic()
            played = self.play(self.open(), task, self.solution(task))
            self._references[task.id] = Reference(played=played, seconds=time.monotonic() - start)
        return self._references[task.id]

    def play_hostile(self, env: Env, task: Task) -> Iterator[tuple[Env, Played | None]]:
        """Play every hostile action; yields the instance in use and the episode, as `try_play` returns them.

        Of the first task, each has an episode of its own. Of the others, those that try to write have, and
        the malformed ones follow each other: a reset may take longer than all of them together.
        """
        alone = self.hostile_actions(task)
        if task.id != self.sample()[0].id:
            alone = alone[len(MALFORMED) :]
            for instance, played in self.play_row(env, task, tuple(MALFORMED.values())):
                env = instance
                yield env, played
        for action in alone:
            env, played = self.try_play(env, task, [action])
            yield env, played

    def play_row(self, env: Env, task: Task, actions: Sequence[str]) -> Iterator[tuple[Env, Played | None]]:
        """Play all actions in as few episodes of at most `max_turns` as they leave.

        Where the environment raises, each of those left is played in an episode of its own.
        """
        left, together, limit = tuple(actions), True, max(1, self.max_turns(env, task))
        while left:
            row = left[:limit] if together else left[:1]
            env, played = self.try_play(env, task, row)
            if played is not None:
                left = left[len(played.actions) :]
            elif together:
                together = False
            else:
                left = left[1:]
            yield env, played

    def reset(self, env: Env, task: Task) -> str:
        self.episodes += 1
        return self.call(f"reset of task {task.id}", lambda: env.reset(task))

    def step(self, env: Env, task: Task, action: str) -> StepResult:
        self.turns += 1
        return self.call(f"step({shorten(action)}) of task {task.id}", lambda: env.step(action))

    def limit_reward(self, env: Env, task: Task) -> float:
        return self.call(f"reward_at_limit of task {task.id}", env.reward_at_limit)

    def max_turns(self, env: Env, task: Task) -> int:
        return self.call(f"max_turns of task {task.id}", lambda: env.max_turns(task))

    def play(self, env: Env, task: Task, actions: Sequence[str]) -> Played:
        """Reset and play the actions until one ends the episode, or none is left."""
        prompt = self.reset(env, task)
        results: list[StepResult] = []
        for action in actions:
            results.append(self.step(env, task, action))
            if results[-1].done:
                break
        done = bool(results) and results[-1].done
        reward = results[-1].reward if done else self.limit_reward(env, task)
        return Played(
            task=task,
            prompt=prompt,
            actions=tuple(actions[: len(results)]),
            results=tuple(results),
            reward=reward,
        )

    def try_play(self, env: Env, task: Task, actions: Sequence[str]) -> tuple[Env, Played | None]:
        """Play; where the environment raises, which another check tells, a new instance and None."""
        try:
            return env, self.play(env, task, actions)
        except EnvRaised:
            _close(env)
            return self.open(), None

    def counts(self) -> str:
        return f"{self.episodes} episodes, {self.turns} turns"

    def compare(self, expected: Played, found: Played, when: str) -> None:
        """Raise Violation where the same actions led to another reward, or other observations."""
        where = f"task {expected.task.id}, {when}"
        if self.deterministic:
            pairs = zip(expected.actions, expected.results, found.results, strict=False)
            for turn, (action, one, other) in enumerate(pairs, 1):
                if one.observation != other.observation:
                    raise Violation(
                        f"{where}: turn {turn}, action {shorten(action)}: found the observation "
                        f"{shorten(other.observation)}, expected {shorten(one.observation)}"
                    )
            if expected.actions != found.actions:
                raise Violation(
                    f"{where}: the episode took {len(found.actions)} turns, expected {len(expected.actions)}"
                )
        if expected.reward != found.reward and not abs(expected.reward - found.reward) < 1e-6:
            raise Violation(f"{where}: found reward {found.reward}, expected {expected.reward}")


def shorten(value: Any, length: int = 80) -> str:
    """A value as one line of at most that many characters."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 30]}... ({len(text)} characters)"


def _close(env: Env) -> None:
    try:
        env.close()
    except Exception:  # `close` has checks of its own
        return
