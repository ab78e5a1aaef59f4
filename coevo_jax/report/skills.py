"""What a base and the players that it learned from can do: one table, from the episodes of both."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypedDict

from coevo_jax.envs.players import Players
from coevo_jax.episode_stats.after_error import FOLLOWED, IsError
from coevo_jax.episode_stats.summary import Summary, summarize
from coevo_jax.report.markdown import table
from coevo_jax.trajectory import Ending, Trajectory

WORDS = {
    "recovered": "solved the task after it",
    "repeated": "did the same again",
    "gave_up": "ended the episode",
    "went_on": "went on, unsolved",
    "cut_off": "was cut off",
}


class Skills(TypedDict):
    """The statistics of one player's or model's episodes."""

    summary: Summary
    shown: dict[str, tuple[int, int]]  # skill -> episodes that show it right, episodes in which it shows


def measure_skills(
    trajectories: Sequence[Trajectory],
    players: Players,
    is_error: IsError,
    *,
    seed: int,
    hard_negative_threshold: float,
) -> Skills:
    """Count what the episodes show; intervals are over tasks."""
    shown: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for one in trajectories:
        for name, well in players.skills(one.prompt, one.turns).items():
            shown[name] += 1
            right[name] += well
    summary = summarize(
        trajectories, hard_negative_threshold=hard_negative_threshold, seed=seed, is_error=is_error
    )
    return Skills(summary=summary, shown={name: (right[name], shown[name]) for name in sorted(shown)})


def skills_table(players: Players, measured: Mapping[str, Skills]) -> str:
    """A column for each name, a row for each measure."""
    names = list(measured)
    rows: list[list[str]] = []

    def add(words: str, cells: list[str]) -> None:
        rows.append([words, *cells])

    summaries = [measured[name]["summary"] for name in names]
    add("episodes", [str(one["finished"]) for one in summaries])
    add("mean reward (95 % interval over tasks)", [_mean(one) for one in summaries])
    add("solved", [_share(one["histogram"][-1], one["finished"]) for one in summaries])
    for skill, words in players.skill_words.items():
        add(words, [_share(*measured[name]["shown"].get(skill, (0, 0))) for name in names])
    errors = [one["after_error"] for one in summaries]
    met = [0 if one is None else one["episodes"] for one in errors]
    add("met an error", [_share(count, one["finished"]) for count, one in zip(met, summaries, strict=True)])
    for key in FOLLOWED:
        counts = [0 if one is None else one[key] for one in errors]
        add(f"– of these, {WORDS[key]}", [_share(*pair) for pair in zip(counts, met, strict=True)])
    limits = (Ending.TOKEN_LIMIT, Ending.TURN_LIMIT)
    cut = [(sum(one["endings"][limit] for limit in limits), one["n"]) for one in summaries]
    add("cut by the limit of tokens or turns", [_share(*pair) for pair in cut])
    add("turns", [f"{one['mean_turns']:.1f}" for one in summaries])
    add(
        "failures by reward, tenths from 0",
        [" ".join(map(str, one["histogram"][:-1])) for one in summaries],
    )
    return table(["", *names], rows)


def skills_page(players: Players, measured: Mapping[str, Skills], machine: str) -> str:
    """What a page of bases has of one: the table, and where it was made and measured."""
    return f"{skills_table(players, measured)}\n\nMade and measured on {machine}."


def _mean(summary: Summary) -> str:
    interval = summary["mean_reward_ci"]
    words = "–" if summary["mean_reward"] is None else f"{summary['mean_reward']:.3f}"
    return words if interval is None else f"{words} ({interval[0]:.3f} to {interval[1]:.3f})"


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%} ({count} of {of})" if of else "–"
