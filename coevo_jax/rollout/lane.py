"""Episodes of one agent (or of several adapters) over the slots of one engine, block by block.

Where turns join in order, the order of events is fixed by the tokens alone, never by the clock, so a block of
tasks played again with the same parameters gives the same trajectories bit by bit.
"""

import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.envs import answers
from coevo_jax.envs.env import Env, EnvFault, StepResult, Task, parse_response
from coevo_jax.methods.hints import NO_HINTS, Hints, hinted
from coevo_jax.methods.marks import marked
from coevo_jax.rollout.bar import ProgressBar
from coevo_jax.rollout.device_clock import DeviceClock
from coevo_jax.rollout.lockstep import Environments
from coevo_jax.rollout.replay import MALFORMED, WAITING, Asked, Lost, Opening, Replays, Start, begin, replay
from coevo_jax.rollout.slots import DecodeBlock, SlotEngine
from coevo_jax.sampling.engine import Request, Sampling, Written
from coevo_jax.trajectory import SOLVED_REWARD, Ending, Trajectory, Turn

STOP_SHARE = 4  # a decode block ends when one in this many of its writers has finished a turn


@dataclass(kw_only=True, eq=False)
class Episode:
    """An episode while it is played."""

    order: tuple[int, int]  # cast, and place of its trajectory among the cast's
    agent: str
    adapter: int  # which of the lane's adapters plays it; 0 without adapters
    phase: int
    task: Task
    sample: int
    mark: str = ""  # that the task is played under
    hints: Hints = NO_HINTS  # what it is to be told that it could do
    given: list[str] = field(default_factory=list)  # of these, what it was told before each turn, "" for none
    prompt: str = ""  # as the agent sees it
    max_turns: int = 0
    turns: list[Turn] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    agent_mask: list[bool] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    turn_start: int = 0  # index of the running turn's first token
    start: Start | None = None  # from where it is played; None is its task's start
    most_turns: int | None = None  # that it plays itself
    asked: Asked | None = None  # the question that it is, instead of a task

    def begin_at(self, start: Start) -> None:
        """Take over the turns and tokens that the episode begins with."""
        other, tokens = start.trajectory, start.branch.tokens
        self.prompt, self.turns = other.prompt, list(other.turns[: start.branch.turns])
        self.tokens = other.tokens[:tokens].tolist()
        self.agent_mask = other.agent_mask[:tokens].tolist()
        self.logps = other.logps[:tokens].tolist()

    def told(self, text: str) -> str:
        """The text that the agent is told before its next turn: with what it could do, which is noted."""
        action = self.hints.at(self.given, text)
        self.given.append(action)
        return hinted(text, action, self.hints.wording)

    def extend(self, tokens: Sequence[int], logps: Sequence[float] | None = None) -> None:
        """Append the agent's tokens with their log-probabilities, or given tokens without."""
        self.tokens += tokens
        self.agent_mask += [logps is not None] * len(tokens)
        self.logps += [0.0] * len(tokens) if logps is None else logps

    def record(self, ending: Ending, reward: float, fault: str) -> Trajectory:
        return Trajectory(
            task_id=self.task.id,
            agent=self.agent,
            sample=self.sample,
            prompt=self.prompt,
            mark=self.mark,
            turns=tuple(self.turns),
            reward=reward,
            ending=ending,
            tokens=np.array(self.tokens, np.int32),
            agent_mask=np.array(self.agent_mask, bool),
            logps=np.array(self.logps, np.float32),
            branch=None if self.start is None else self.start.branch,
            about=None if self.asked is None else self.asked.about,
            hints=given if any(given := tuple(self.given[: len(self.turns)])) else (),
            fault=fault,
        )


@dataclass(kw_only=True, eq=False)
class Lane:
    """An engine's slots, the episodes in them, and what each of them waits for.

    A live slot is in exactly one of four places: `writing` (the engine), `then` (a call of its environment
    is on its way, this is what comes after), `unread` (tokens to prefill before it writes), or `states`
    (another slot replays the turns after which its episode begins).
    """

    engine: SlotEngine
    weights: Any  # what the engine's `load` gave
    adapters: int  # how many of them the lane's episodes take; 1 without any
    prefix: Sequence[int]  # tokens that all prompts begin with
    pool: Environments
    first_env: int  # the pool's slot of the lane's slot 0
    chat: ChatFormat
    sampling: Sampling
    script: Mapping[str, Sequence[Sequence[int]]]
    waiting: deque[Episode]
    bar: ProgressBar
    clock: DeviceClock
    watch: Callable[[Episode], None] = lambda episode: None  # called when one has begun, and after its turns
    room: int | None = None  # of its slots play so many, the first ones; None is all
    live: dict[int, Episode] = field(default_factory=dict)
    writing: set[int] = field(default_factory=set)
    unread: dict[int, list[int]] = field(default_factory=dict)
    then: dict[int, Callable[[int, Any], None]] = field(default_factory=dict)
    opening: set[int] = field(default_factory=set)  # slots whose episode has not been read yet
    states: Replays = field(default_factory=Replays)
    done: dict[tuple[int, int], Trajectory] = field(default_factory=dict)
    decoding: DecodeBlock | None = None
    decoded_tokens: int = 0
    env_wait: float = 0.0

    def open(self) -> None:
        """Empty the slots and begin an episode in each."""
        self.engine.begin(self.weights, self.prefix, self.adapters)
        for slot in range(self.engine.slots if self.room is None else self.room):
            self._next_episode(slot)

    @property
    def _most(self) -> int:
        """Characters of an answer that are read."""
        return answers.most_characters(self.engine.config.max_tokens)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do until an environment answers."""
        return not self.writing and not self.unread

    def start_block(self) -> None:
        """Let the device decode all slots that write."""
        requests = {slot: self._request(slot) for slot in sorted(self.writing)}
        if requests:
            quota = max(1, len(requests) // STOP_SHARE)
            started = time.monotonic()
            self.decoding = self.engine.decode(self.weights, requests, self.sampling, quota=quota)
            self.clock.track("decode", started, self.decoding.done)

    def finish_block(self) -> None:
        """Take what the device wrote, and send finished turns to their environments."""
        if self.decoding is not None:
            for slot, written in self.decoding.fetch().items():
                self._read(slot, written)
            self.decoding = None

    def settle(self) -> None:
        """Take all answers of the environments, in the order of slots, and those to the calls that follow."""
        start = time.monotonic()
        while self.then:
            self._take(self.pool.wait(self._env_slots()))
        self.env_wait += time.monotonic() - start

    def take_ready(self, *, wait: bool) -> None:
        """Take the answers that have arrived; with `wait`, at least one."""
        start = time.monotonic()
        if self.then:
            self._take(self.pool.ready(self._env_slots(), wait=wait))
        self.env_wait += time.monotonic() - start

    def prefill(self) -> None:
        """Prefill the tokens that slots have not read yet; those slots write from the next block on."""
        if not self.unread:
            return
        texts = {slot: np.array(ids, np.int32) for slot, ids in sorted(self.unread.items())}
        fresh = frozenset(self.opening & texts.keys())
        self.opening -= fresh
        started = time.monotonic()
        agents = {slot: self.live[slot].adapter for slot in fresh}
        for call in self.engine.prefill(self.weights, texts, fresh, agents):
            self.clock.track("prefill", started, call)
        for slot in texts:
            self.live[slot].turn_start = len(self.live[slot].tokens)
        self.writing |= texts.keys()
        self.unread.clear()

    def _env_slots(self) -> set[int]:
        return {self.first_env + slot for slot in self.then}

    def _next_episode(self, slot: int) -> None:
        if not self.waiting:
            return
        episode = self.live[slot] = self.waiting.popleft()
        start, asked = episode.start, episode.asked
        if asked is not None:
            opening = Opening(system_prompt=asked.system_prompt, prompt=asked.text, max_turns=1)
            self._begun(slot, opening)
            return
        if start is None:
            self._call(slot, lambda env: begin(env, episode.task, self._most), self._begun)
            return
        episode.begin_at(start)
        known = self.states.of(start, slot)
        if known is not WAITING:
            self._replay(slot, start, known)

    def _replay(self, slot: int, start: Start, known: Opening | None) -> None:
        task = self.live[slot].task
        turns = 1 if known is not None else 1 + start.branch.turns
        self._call(slot, lambda env: replay(env, task, start, known, self._most), self._replayed, steps=turns)

    def _release(self, slot: int, outcome: Opening | Lost | None) -> None:
        """Let the slots go on that wait for the state that this one has replayed."""
        start = self.live[slot].start
        assert start is not None
        for follower in self.states.keep(start, outcome):
            known = None if outcome is None else self.states.of(start, follower)
            self._replay(follower, start, known)

    def _call(
        self,
        slot: int,
        function: Callable[[Env], Any],
        then: Callable[[int, Any], None],
        steps: int = 1,
    ) -> None:
        self.then[slot] = then
        self.pool.submit(self.first_env + slot, function, steps=steps)

    def _take(self, outcomes: Mapping[int, Any]) -> None:
        for place, outcome in outcomes.items():
            slot = place - self.first_env
            then = self.then.pop(slot)
            if isinstance(outcome, EnvFault):
                if then == self._replayed:
                    self._release(slot, None)
                self._finish(slot, Ending.FAULT, 0.0, str(outcome))
            else:
                then(slot, outcome)

    def _begun(self, slot: int, opening: Opening) -> None:
        episode = self.live[slot]
        episode.prompt, episode.max_turns = marked(opening.prompt, episode.mark), opening.max_turns
        self.watch(episode)
        ids = self.chat.prompt_ids(opening.system_prompt, episode.told(episode.prompt))
        self._open(slot, ids)

    def _open(self, slot: int, ids: Sequence[int]) -> None:
        """Let a slot read the beginning of its episode, if there is room for it."""
        if len(ids) >= self.engine.config.max_tokens:
            self._cut(slot, Ending.TOKEN_LIMIT)
            return
        episode = self.live[slot]
        if episode.start is None:
            episode.extend(ids)
        self.unread[slot] = list(ids)
        self.opening.add(slot)

    def _replayed(self, slot: int, outcome: Opening | Lost) -> None:
        """Go on where the replayed turns end; the slots that wait for the same state get it from this one."""
        episode = self.live[slot]
        start = episode.start
        assert start is not None
        self._release(slot, outcome)
        if isinstance(outcome, Lost):
            self._finish(slot, Ending.LOST, 0.0)
            return
        own = len(episode.turns) + (episode.most_turns or outcome.max_turns)
        episode.max_turns = min(own, outcome.max_turns)
        self.watch(episode)
        self._open(slot, episode.tokens)

    def _request(self, slot: int) -> Request:
        episode, engine = self.live[slot], self.engine
        turn, written = len(episode.turns), len(episode.tokens) - episode.turn_start
        script = self._script(episode, turn)
        limit = engine.config.max_turn_tokens if script is None else engine.config.max_tokens
        return Request(
            budget=min(limit - written, engine.room(slot)),
            ids=(episode.phase, zlib.crc32(episode.task.id.encode()), episode.sample, turn),
            script=() if script is None else script[written:],
        )

    def _script(self, episode: Episode, turn: int) -> Sequence[int] | None:
        """The tokens that an episode's turn is made of where the agent does not choose them."""
        turns = self.script.get(episode.task.id)
        if turns:
            return turns[turn]
        start = episode.start
        return start.response if start is not None and turn == start.branch.turns else None

    def _read(self, slot: int, written: Written) -> None:
        """Take what a slot wrote; a finished turn goes to the environment."""
        episode = self.live[slot]
        episode.extend(written.tokens, written.logps)
        self.decoded_tokens += len(written.tokens)
        if not written.ended and self._request(slot).budget > 0:
            return
        self.writing.remove(slot)
        response = self.chat.decode_response(episode.tokens[episode.turn_start :])
        if episode.asked is not None:
            episode.turns.append(Turn(response=response, action="", observation=""))
            self._finish(slot, Ending.ANSWERED if written.ended else Ending.TOKEN_LIMIT, 0.0)
            return
        parsed = parse_response(response) if written.ended else None
        action = parsed[1] if parsed else ""
        episode.turns.append(Turn(response=response, action=action, observation=""))
        if not written.ended:
            self._cut(slot, Ending.TOKEN_LIMIT)
        elif parsed is None:
            self._observe(slot, MALFORMED)
        else:
            self._call(slot, lambda env: answers.step(env, action, self._most), self._stepped)

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
        # A turn that stopped at the end of its action's line is closed for the agent.
        closing = [] if episode.tokens[-1] == self.chat.end_id else [self.chat.end_id]
        ids = [*closing, *self.chat.observation_ids(episode.told(observation))]
        if len(ids) >= self.engine.room(slot):
            self._cut(slot, Ending.TOKEN_LIMIT)
            return
        episode.extend(ids)
        self.unread[slot] = ids

    def _answer(self, slot: int, observation: str) -> None:
        turns = self.live[slot].turns
        turns[-1] = replace(turns[-1], observation=observation)
        self.watch(self.live[slot])

    def _cut(self, slot: int, ending: Ending) -> None:
        """End an episode at a limit, with the reward the environment gives it now; a question has none."""
        asked = self.live[slot].asked is not None
        self._call(
            slot,
            lambda env: 0.0 if asked else answers.reward_at_limit(env),
            lambda slot, reward: self._finish(slot, ending, reward),
        )

    def _finish(self, slot: int, ending: Ending, reward: float, fault: str = "") -> None:
        episode = self.live.pop(slot)
        trajectory = self.done[episode.order] = episode.record(ending, reward, fault)
        self.bar.finish_episode(trajectory)
        self._next_episode(slot)
