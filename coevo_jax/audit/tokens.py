"""Tokens: that the mask says what the agent wrote, and that the agent who played would write it so likely."""

from collections.abc import Iterator, Sequence

import numpy as np

from coevo_jax.audit.check import Check, NotCheckable, differs, judge
from coevo_jax.audit.forward import Agents, per_token, sample
from coevo_jax.audit.hints import tell
from coevo_jax.audit.marks import marks_in, prompt_problems
from coevo_jax.audit.order import Phase, finished
from coevo_jax.audit.reading import BROKEN, Episode, RunFiles, read_episodes
from coevo_jax.audit.rendering import Rendering, open_rendering
from coevo_jax.audit.whose import Tasks
from coevo_jax.config.options import RolloutConfig

COLUMNS = ("prompt", "turns", "tokens", "agent_mask", "logps")
CLOSE = 8  # a token's log-probability may be off by so many times what the compute type gives on average


class Counts:
    """What was looked at, for the words of a check."""

    def __init__(self) -> None:
        self.episodes = self.scored = self.tokens = self.unread = 0


def token_checks(files: RunFiles, tasks: Tasks, agents: Agents, scored: int | None) -> Iterator[Check]:
    """Experts and every collection: masks and text; and log-probabilities of at most `scored` episodes."""
    for name in ("experts", "imported"):
        path = f"trajectories/{name}.parquet"
        if path in files.files:
            counts = Counts()
            problems = expert_problems(files, path, tasks, counts)
            yield judge(f"tokens/{name}", problems, lambda counts=counts: _read_words(counts))
    for phase in finished(files, "explore", "branch", "ask", "evaluate"):
        counts = Counts()
        problems = mask_problems(files, phase, tasks, counts)
        yield judge(f"tokens/{phase.name}", problems, lambda counts=counts: _read_words(counts))
        if phase.adapting is not None:  # its weights are no checkpoint's: `adaptation` has them
            continue
        counts = Counts()
        problems = logp_problems(files, phase, agents, scored, counts)
        yield judge(f"logps/{phase.name}", problems, lambda counts=counts: _scored_words(counts))


def _read_words(counts: Counts) -> str:
    words = f"the masks and texts of {counts.episodes} trajectories"
    return words + (f"; {counts.unread} stretches hold text like a special token" if counts.unread else "")


def _scored_words(counts: Counts) -> str:
    return f"{counts.tokens} tokens of {counts.scored} of {counts.episodes} episodes"


def _rendering(files: RunFiles, tasks: Tasks) -> Rendering:
    return open_rendering(files.folder / "tokenizer", tasks.opened_prompt())


def mask_problems(files: RunFiles, phase: Phase, tasks: Tasks, counts: Counts) -> Iterator[str]:
    """The mask of every episode of a collection, from its text."""
    rendering, marks = _rendering(files, tasks), marks_in(files.config)
    for path in files.collection(phase.round, phase.collection):
        for row, episode in enumerate(read_episodes(path, COLUMNS)):
            where = f"{path.relative_to(files.folder)}: row {row}: {episode.name}"
            wording = None if phase.hints is None else phase.hints.wording
            yield from conversation_problems(where, episode, rendering, counts, wording)
            yield from prompt_problems(where, episode.prompt, phase, marks)
            yield from action_problems(where, episode)
            yield from limit_problems(where, episode, files.config.rollout)
            counts.episodes += 1


def expert_problems(files: RunFiles, path: str, tasks: Tasks, counts: Counts) -> Iterator[str]:
    """The same of experts; an imported set may leave turns out of the mask."""
    rendering = _rendering(files, tasks)
    for row, episode in enumerate(read_episodes(files.folder / path, COLUMNS)):
        where = f"{path}: row {row}: {episode.name}"
        counts.episodes += 1
        if len(episode.run_ends) < len(episode.turns) and path.endswith("imported.parquet"):
            yield from _subset_problems(where, episode, rendering)
        else:
            yield from conversation_problems(where, episode, rendering, counts)
        if np.any(episode.logps):
            yield f"{where}: logps: found {episode.logps[np.flatnonzero(episode.logps)[0]]}, expected zeros"


def conversation_problems(
    where: str, episode: Episode, rendering: Rendering, counts: Counts, wording: str | None = None
) -> Iterator[str]:
    """Agent and other stretches take turns; each is what the text and the template give.

    Args:
      wording: of what was suggested; None where nothing was.
    """
    if wording is None and episode.hints:
        yield f"{where}: hints: found {list(episode.hints)}, expected none: nothing was suggested"
        return
    lengths = [len(getattr(episode, name)) for name in ("tokens", "agent_mask", "logps")]
    yield from differs(f"{where}: lengths", lengths, [lengths[0]] * 3)
    starts, ends, turns = episode.run_starts, episode.run_ends, episode.turns
    yield from differs(f"{where}: turns in the mask", len(ends), len(turns))
    if len(ends) != len(turns) or len(set(lengths)) > 1:
        return
    outside = np.append(ends[-1:], len(episode.tokens))
    if len(outside) == 2 and outside[0] != outside[1] and not _went_on(episode):
        yield f"{where}: found {outside[1] - outside[0]} tokens behind the last turn, expected none"
    stray = np.flatnonzero(~episode.agent_mask & (episode.logps != 0))
    if len(stray):
        yield f"{where}: token {stray[0]}: found a log-probability of a token that the agent did not write"
    end = 0
    for turn, (start, stop) in enumerate(zip(starts, ends, strict=True)):
        given = episode.tokens[end:start].tolist()
        action = episode.hints[turn] if episode.hints else ""
        text = tell(turns[turn - 1]["observation"] if turn else episode.prompt, action, wording or "")
        yield from _given_problems(where, turn, (text, given), episode, rendering, counts)
        words = rendering.words(given, episode.tokens[start:stop].tolist())
        said = turns[turn]["response"]
        if words not in rendering.said(said):
            yield f"{where}: turn {turn + 1}: the mask's tokens say {words!r}, expected {said!r}"
        end = stop


def _went_on(episode: Episode) -> bool:
    """Whether tokens may follow the last turn: none do, but where the environment broke before the next."""
    return episode.ending in BROKEN


def _given_problems(
    where: str,
    turn: int,
    told: tuple[str, list[int]],
    episode: Episode,
    rendering: Rendering,
    counts: Counts,
) -> Iterator[str]:
    """What stands before a turn: the task, or the answer to the turn before, as text and as tokens."""
    text, given = told
    if turn == 0:
        wanted = rendering.opening(text)
    else:
        answer = rendering.answer(text)
        # A turn that stopped at the end of its action's line is closed for the agent.
        last = episode.run_ends[turn - 1] - 1
        closing = [] if episode.tokens[last] == rendering.end_id else [rendering.end_id]
        wanted = None if answer is None else [*closing, *answer]
    if wanted is None:
        counts.unread += 1
    elif given != wanted:
        place = next((i for i, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b), len(wanted))
        before = "the task" if turn == 0 else f"the answer to turn {turn}"
        yield (
            f"{where}: {before}: token {place}: found {given[place : place + 4]} of {len(given)}, "
            f"expected {wanted[place : place + 4]} of {len(wanted)}"
        )


def _subset_problems(where: str, episode: Episode, rendering: Rendering) -> Iterator[str]:
    """Every run of the mask says one of the turns, in their order."""
    left = [turn["response"] for turn in episode.turns]
    for start, stop in zip(episode.run_starts, episode.run_ends, strict=True):
        words = rendering.words(episode.tokens[:start].tolist(), episode.tokens[start:stop].tolist())
        while left and words not in rendering.said(left[0]):
            left.pop(0)
        if not left:
            yield f"{where}: the mask's tokens say {words!r}, expected one of its turns"
            return
        left.pop(0)


def action_problems(where: str, episode: Episode) -> Iterator[str]:
    """The environment got what stands behind the agent's last "Action:", or nothing."""
    for number, turn in enumerate(episode.turns, start=1):
        _, marker, after = turn["response"].rpartition("Action:")
        wanted = after.strip() if marker else ""
        if turn["action"] not in ("", wanted):
            yield f"{where}: turn {number}: action: found {turn['action']!r}, expected {wanted!r}"


def limit_problems(where: str, episode: Episode, limits: RolloutConfig) -> Iterator[str]:
    """No episode is longer than a slot, and no turn longer than a turn may be."""
    if len(episode.tokens) > limits.max_tokens:
        yield f"{where}: found {len(episode.tokens)} tokens, expected at most {limits.max_tokens}"
    # The first own turn of a branch may have been given to the agent, which knows no such limit.
    own = episode.replayed_turns + 1 if episode.branch else 0
    longest = max((episode.run_ends - episode.run_starts)[own:], default=0)
    if longest > limits.max_turn_tokens:
        yield f"{where}: found a turn of {longest} tokens, expected at most {limits.max_turn_tokens}"


def logp_problems(
    files: RunFiles, phase: Phase, agents: Agents, scored: int | None, counts: Counts
) -> Iterator[str]:
    """The recorded log-probabilities are those of the checkpoint whose agent played."""
    number = files.recorded(phase.name, "checkpoint")
    if not agents.has(number):
        raise NotCheckable(f"pruned: checkpoint {number} is gone (checkpoint.keep: all keeps every one)")
    episodes = _drawn(files, phase, scored, counts)
    found = agents.score(number, phase.agent, [episode.tokens for episode in episodes])
    noise = per_token(files.config.model, files.devices)
    for episode, ours in zip(episodes, found, strict=True):
        own = np.flatnonzero(episode.agent_mask[episode.replayed_tokens :]) + episode.replayed_tokens
        off = np.abs(episode.logps[own] - ours.logps[own])
        counts.tokens += len(own)
        counts.scored += 1
        if len(own) and not (np.max(off) <= CLOSE * noise and np.mean(off) <= noise):
            worst = own[np.argmax(np.where(np.isnan(off), np.inf, off))]
            yield (
                f"{phase.name}: {episode.name}: token {worst}: found log-probability "
                f"{episode.logps[worst]:.6g}, expected {ours.logps[worst]:.6g} of the {phase.agent} agent of "
                f"checkpoint {number} (mean difference {np.mean(off):.2g})"
            )


def _drawn(files: RunFiles, phase: Phase, scored: int | None, counts: Counts) -> Sequence[Episode]:
    """The episodes to score again: drawn by name, so that only they are kept in memory."""
    paths = files.collection(phase.round, phase.collection)
    names = [(e.task_id, e.sample) for path in paths for e in read_episodes(path)]
    counts.episodes = len(names)
    wanted = set(sample(names, lambda name: f"{phase.name} {name}", scored))
    columns = ("tokens", "agent_mask", "logps")
    return [
        e
        for path in paths
        for e in read_episodes(path, columns)
        if (e.task_id, e.sample) in wanted and len(e.tokens)
    ]
