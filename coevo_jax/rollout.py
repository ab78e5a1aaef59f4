"""Plays episodes: environments x engine -> trajectories.

The order of events is fixed by the tokens alone, never by the clock, so a block of tasks played again with
the same parameters gives the same trajectories bit by bit.
"""

import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from rich.console import Console

from coevo_jax.data.chat import ChatFormat
from coevo_jax.envs.env import Env, EnvFault, StepResult, Task, parse_response
from coevo_jax.envs.pool import EnvPool
from coevo_jax.models.transformer import Params
from coevo_jax.rollout_stats import ProgressBar, RolloutStats
from coevo_jax.sampling.engine import Engine, Request, Sampling, Written
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration, Ending, Trajectory, Turn

MALFORMED = (
    'Invalid action: no "Action:" found. Answer with one line that starts with "Thought:" and one line that '
    'starts with "Action:".'
)
STOP_SHARE = 4  # a decode block ends when one in this many of its writers has finished a turn


@dataclass(kw_only=True, eq=False)
class _Episode:
    """An episode while it is played."""

    order: int  # place of its trajectory in the result
    task: Task
    sample: int
    prompt: str = ""
    max_turns: int = 0
    turns: list[Turn] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    agent_mask: list[bool] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    turn_start: int = 0  # index of the running turn's first token

    def extend(self, tokens: Sequence[int], logps: Sequence[float] | None = None) -> None:
        """Append the agent's tokens with their log-probabilities, or given tokens without."""
        self.tokens += tokens
        self.agent_mask += [logps is not None] * len(tokens)
        self.logps += [0.0] * len(tokens) if logps is None else logps


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What an environment says when an episode starts."""

    system_prompt: str
    prompt: str
    max_turns: int


def play(
    engine: Engine,
    params: Params,
    pool: EnvPool,
    chat: ChatFormat,
    tasks: Sequence[Task],
    *,
    agent: str,
    samples: int,
    temperature: float,
    top_p: float,
    seed: int,
    phase: int,
    script: Mapping[str, Sequence[Sequence[int]]] | None = None,
    progress: Console | None = None,
    label: str = "roll-outs",
) -> tuple[list[Trajectory], RolloutStats]:
    """Play `samples` episodes of every task.

    Args:
      engine: its slots are emptied first; slots, token limits and block size are its own.
      pool: environment instances, kept by the caller across calls; one per slot of the engine.
      agent: name recorded in the trajectories.
      temperature, top_p: sampling distribution; temperature 0 is greedy.
      seed, phase: with task, sample, turn and position they name each token's random key, so an episode
        does not depend on its slot, on its neighbours or on the number of slots.
      script: tokens of the agent's turns by task id, written instead of drawn; their log-probabilities are
        recorded as if they had been drawn. Such turns know no `max_turn_tokens`.
      progress: where to show progress: a bar on a terminal, one line at the end elsewhere.
      label: what the bar calls the work.

    Returns:
      One trajectory per episode, ordered by task, then sample, and the counts of this call. An episode that
      cannot be played has the ending `fault`; a fault never raises.
    """
    root = jax.random.fold_in(jax.random.key(seed), phase)
    block = _Block(
        engine=engine,
        params=params,
        pool=pool,
        chat=chat,
        sampling=Sampling(root=root, temperature=temperature, top_p=top_p),
        agent=agent,
        script={} if script is None else script,
        waiting=deque(
            _Episode(order=index * samples + sample, task=task, sample=sample)
            for index, task in enumerate(tasks)
            for sample in range(samples)
        ),
    )
    with ProgressBar(progress, label=label, total=len(tasks) * samples) as bar:
        block.run(bar)
    return [block.done[order] for order in range(len(tasks) * samples)], block.stats()


@dataclass(kw_only=True, eq=False)
class _Block:
    """The episodes of one `play`, and where each of them stands.

    A live slot is in exactly one of three places: `writing` (the device), `then` (a call of its environment
    is on its way, this is what comes after) or `unread` (tokens to prefill before it writes).
    """

    engine: Engine
    params: Params
    pool: EnvPool
    chat: ChatFormat
    sampling: Sampling
    agent: str
    script: Mapping[str, Sequence[Sequence[int]]]
    waiting: deque[_Episode]
    live: dict[int, _Episode] = field(default_factory=dict)
    writing: set[int] = field(default_factory=set)
    unread: dict[int, list[int]] = field(default_factory=dict)
    then: dict[int, Callable[[int, Any], None]] = field(default_factory=dict)
    done: dict[int, Trajectory] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    reward: float = 0.0
    prefill_tokens: int = 0
    env_wait: float = 0.0

    def run(self, bar: "ProgressBar") -> None:
        """Play until every episode has its ending: the device decodes while environments answer."""
        self.bar, self.started = bar, time.monotonic()
        self.env_before = (self.pool.calls, self.pool.seconds)
        self.engine.reset()
        places_before = self.engine.token_places
        for slot in range(self.engine.slots):
            self._next_episode(slot)
        while self.live:
            requests = {slot: self._request(slot) for slot in sorted(self.writing)}
            quota = max(1, len(requests) // STOP_SHARE)
            decoding = (
                self.engine.decode(self.params, requests, self.sampling, quota=quota) if requests else None
            )
            self._settle()
            if decoding is not None:
                for slot, written in decoding.fetch().items():
                    self._read(slot, written)
            self._prefill()
        self.token_places = self.engine.token_places - places_before
        self.seconds = time.monotonic() - self.started

    def stats(self) -> RolloutStats:
        calls, seconds = self.env_before
        return RolloutStats(
            episodes=len(self.done),
            turns=sum(len(trajectory.turns) for trajectory in self.done.values()),
            agent_tokens=sum(int(trajectory.agent_mask.sum()) for trajectory in self.done.values()),
            token_places=self.token_places,
            prefill_tokens=self.prefill_tokens,
            seconds=self.seconds,
            env_wait_seconds=self.env_wait,
            env_calls=self.pool.calls - calls,
            env_seconds=self.pool.seconds - seconds,
            reward_sum=self.reward,
            endings={ending.value: self.counts[ending] for ending in Ending},
        )

    def _next_episode(self, slot: int) -> None:
        if self.waiting:
            episode = self.live[slot] = self.waiting.popleft()
            self._call(slot, lambda env: _begin(env, episode.task), self._begun)

    def _call(self, slot: int, function: Callable[[Env], Any], then: Callable[[int, Any], None]) -> None:
        self.then[slot] = then
        self.pool.submit(slot, function)

    def _settle(self) -> None:
        """Take all answers of the environments, in order of slots, and those to the calls they lead to."""
        start = time.monotonic()
        while self.then:
            for slot, outcome in self.pool.wait().items():
                then = self.then.pop(slot)
                if isinstance(outcome, EnvFault):
                    self._finish(slot, Ending.FAULT, 0.0)
                else:
                    then(slot, outcome)
        self.env_wait += time.monotonic() - start

    def _begun(self, slot: int, start: _Start) -> None:
        episode = self.live[slot]
        episode.prompt, episode.max_turns = start.prompt, start.max_turns
        ids = self.chat.prompt_ids(start.system_prompt, start.prompt)
        if len(ids) >= self.engine.config.max_tokens:
            self._cut(slot, Ending.TOKEN_LIMIT)
        else:
            episode.extend(ids)
            self.unread[slot] = ids

    def _request(self, slot: int) -> Request:
        episode, engine = self.live[slot], self.engine
        turns = self.script.get(episode.task.id)
        written = len(episode.tokens) - episode.turn_start
        limit = engine.config.max_tokens if turns else engine.config.max_turn_tokens
        return Request(
            budget=min(limit - written, engine.room(slot)),
            ids=(zlib.crc32(episode.task.id.encode()), episode.sample, len(episode.turns)),
            script=turns[len(episode.turns)][written:] if turns else (),
        )

    def _read(self, slot: int, written: Written) -> None:
        """Take what a slot wrote; a finished turn goes to the environment."""
        episode = self.live[slot]
        episode.extend(written.tokens, written.logps)
        if not written.ended and self._request(slot).budget > 0:
            return
        self.writing.remove(slot)
        response = self.chat.decode_response(episode.tokens[episode.turn_start :])
        parsed = parse_response(response) if written.ended else None
        action = parsed[1] if parsed else ""
        episode.turns.append(Turn(response=response, action=action, observation=""))
        if not written.ended:
            self._cut(slot, Ending.TOKEN_LIMIT)
        elif parsed is None:
            self._observe(slot, MALFORMED)
        else:
            self._call(slot, lambda env: env.step(action), self._stepped)

    def _stepped(self, slot: int, result: StepResult) -> None:
        if not result.done:
            self._observe(slot, result.observation)
            return
        self._answer(slot, result.observation)
        self._finish(slot, Ending.SOLVED if result.reward >= SOLVED_REWARD else Ending.FAILED, result.reward)

    def _observe(self, slot: int, observation: str) -> None:
        """Record the answer to a turn, and let the slot read it if there is a turn and room left."""
        episode = self.live[slot]
        self._answer(slot, observation)
        if len(episode.turns) >= episode.max_turns:
            self._cut(slot, Ending.TURN_LIMIT)
            return
        ids = self.chat.observation_ids(observation)
        if len(ids) >= self.engine.room(slot):
            self._cut(slot, Ending.TOKEN_LIMIT)
            return
        episode.extend(ids)
        self.unread[slot] = ids

    def _answer(self, slot: int, observation: str) -> None:
        turns = self.live[slot].turns
        turns[-1] = replace(turns[-1], observation=observation)

    def _cut(self, slot: int, ending: Ending) -> None:
        """End an episode at a limit, with the reward the environment gives it now."""
        self._call(
            slot, lambda env: env.reward_at_limit(), lambda slot, reward: self._finish(slot, ending, reward)
        )

    def _finish(self, slot: int, ending: Ending, reward: float) -> None:
        episode = self.live.pop(slot)
        self.done[episode.order] = Trajectory(
            task_id=episode.task.id,
            agent=self.agent,
            sample=episode.sample,
            prompt=episode.prompt,
            turns=tuple(episode.turns),
            reward=reward,
            ending=ending,
            tokens=np.array(episode.tokens, np.int32),
            agent_mask=np.array(episode.agent_mask, bool),
            logps=np.array(episode.logps, np.float32),
        )
        self.counts[ending] += 1
        self.reward += reward
        self.bar.finish_episode(self.done[episode.order])
        self._next_episode(slot)

    def _prefill(self) -> None:
        if not self.unread:
            return
        texts = {slot: np.array(ids, np.int32) for slot, ids in sorted(self.unread.items())}
        fresh = frozenset(slot for slot in texts if not self.live[slot].turns)
        self.engine.prefill(self.params, texts, fresh)
        for slot, text in texts.items():
            self.live[slot].turn_start = len(self.live[slot].tokens)
            self.prefill_tokens += len(text)
        self.writing |= texts.keys()
        self.unread.clear()


def _begin(env: Env, task: Task) -> _Start:
    prompt = env.reset(task)
    return _Start(system_prompt=env.system_prompt, prompt=prompt, max_turns=env.max_turns(task))


@dataclass(kw_only=True, eq=False)
class _Replay:
    """An environment that answers as a demonstration says, whatever the action."""

    demonstration: Demonstration
    system_prompt: str
    name: str = "replay"
    deterministic: bool = True
    played: int = 0

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(id=self.demonstration.task_id, split=split, family="replay")]

    def max_turns(self, task: Task) -> int:
        return len(self.demonstration.turns)

    def reset(self, task: Task) -> str:
        self.played = 0
        return self.demonstration.prompt

    def step(self, action: str) -> StepResult:
        turn = self.demonstration.turns[self.played]
        self.played += 1
        done = self.played == len(self.demonstration.turns)
        return StepResult(observation=turn.observation, done=done, reward=self.demonstration.reward)

    def reward_at_limit(self) -> float:
        return self.demonstration.reward

    def expert(self, task: Task) -> Demonstration | None:
        return self.demonstration

    def close(self) -> None:
        return


def force(
    engine: Engine, params: Params, chat: ChatFormat, system_prompt: str, demonstration: Demonstration
) -> Trajectory:
    """Drive an expert's turns through the path of `play`, writing its tokens instead of drawing them.

    The result has the tokens and the mask of `data.chat.render`, and the log-probabilities that `params` give
    to the expert. A demonstration longer than the cache ends with `token_limit`.

    Raises:
      ValueError: a turn has no action, or there is no turn: nothing an expert could have played.
    """
    responses = [turn.response for turn in demonstration.turns]
    if not responses or any(parse_response(response) is None for response in responses):
        raise ValueError(f"demonstration of task {demonstration.task_id}: every turn needs an action")
    replay = _Replay(demonstration=demonstration, system_prompt=system_prompt)
    with EnvPool(lambda: replay, workers=1, step_timeout=60.0) as pool:
        [trajectory], _ = play(
            engine,
            params,
            pool,
            chat,
            replay.tasks("train"),
            agent="expert",
            samples=1,
            temperature=0.0,
            top_p=1.0,
            seed=0,
            phase=0,
            script={demonstration.task_id: [chat.response_ids(response) for response in responses]},
        )
    return trajectory
