"""Questions: that an agent was asked what the recipe asks, of the turns that it asks about.

    why_expert   at every turn of an expert at which the agent did otherwise: the task, the turns before, the
                 expert's action and the agent's own, each once, with their answers; then the instruction

    good_or_bad  of the actions of bad paths, whether they were good (`revised`)

What a function of the user's own asks is taken as it is recorded.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from coevo_jax.audit.branches import Sources
from coevo_jax.audit.check import Check, differs, judge
from coevo_jax.audit.order import Phase
from coevo_jax.audit.own_steps import Step, steps
from coevo_jax.audit.reading import Episode, RunFiles, read_episodes
from coevo_jax.audit.revised import questions
from coevo_jax.audit.round import Round, round_of
from coevo_jax.audit.whose import shard_problems

INSTRUCTION = (
    "Say in one or two sentences why the action taken is better than the others, as a thought that comes "
    "before it."
)
ENDINGS = ("answered", "token_limit")
Asked = tuple[str, str, int, int, str]  # task, collection, sample and turn that it is about, text


def question_check(files: RunFiles, phase: Phase) -> Check:
    """One phase's answers."""
    counts = {"questions": 0, "answered": 0}
    return judge(
        f"whose/{phase.name}",
        question_problems(files, phase, counts),
        lambda: f"{counts['questions']} questions as the recipe asks them, {counts['answered']} answered",
    )


def question_problems(files: RunFiles, phase: Phase, counts: dict[str, int]) -> Iterator[str]:
    """Every question was asked once, in order, of the phase's agent; nothing else is there."""
    paths = files.collection(phase.round, phase.collection)
    yield from shard_problems(paths, f"{phase.collection} of round {phase.round}")
    shards = [list(read_episodes(path, ("prompt", "agent_mask"))) for path in paths]
    episodes = [episode for shard in shards for episode in shard]
    assert phase.asking is not None  # a phase that asks has them
    if phase.asking.question in QUESTIONS:
        asked = QUESTIONS[phase.asking.question](phase, round_of(files, phase))
    else:
        asked = [one for episode in episodes if (one := _asked(episode)) is not None]
    blocks = _blocks(asked, files.config.explore.block_tasks)
    yield from differs(f"{phase.name}: shards", len(paths), len(blocks))
    sources = Sources(files, phase.round)
    for path, shard, block in zip(paths, shards, blocks, strict=False):
        where = str(path.relative_to(files.folder))
        number: Counter[str] = Counter()
        yield from differs(f"{where}: answers", len(shard), len(block))
        for row, (episode, wanted) in enumerate(zip(shard, block, strict=False)):
            at = f"{where}: row {row}: {episode.name}"
            yield from differs(f"{at}: agent", episode.agent, phase.agent)
            yield from differs(f"{at}: question", _asked(episode), wanted)
            yield from differs(f"{at}: sample", episode.sample, number[wanted[0]])
            yield from answer_problems(at, episode, sources)
            number[wanted[0]] += 1
    endings = Counter(episode.ending for episode in episodes)
    counts |= {"questions": len(asked), "answered": endings["answered"]}
    recorded = files.record(phase.name)
    tokens = sum(int(episode.agent_mask.sum()) for episode in episodes)
    wanted = {"questions": len(asked), "endings": dict(endings), "agent_tokens": tokens}
    for name, value in wanted.items():
        yield from differs(f"{phase.name}: {name}", recorded.get(name), value)


def answer_problems(where: str, episode: Episode, sources: Sources) -> Iterator[str]:
    """An answer is of a turn that there is, has no reward, and was ended or cut off."""
    if episode.ending not in ENDINGS or episode.reward != 0:
        found = f"{episode.ending} with reward {episode.reward}"
        yield f"{where}: ending: found {found}, expected one of {', '.join(ENDINGS)} with 0"
    about = episode.about
    other = sources.of(about["collection"], episode.task_id, about["sample"]) if about else None
    if about is None or other is None or not 0 <= about["turn"] < len(other.turns):
        yield f"{where}: about: found {about}, expected a turn of an episode of the round"


def why_expert(phase: Phase, found: Round) -> list[Asked]:
    """The questions, by task and as they come within one."""
    assert phase.asking is not None
    options = phase.asking.options
    same, instruction = options.get("same", "action"), options.get("instruction", INSTRUCTION)
    states: dict[tuple[str, int], list[Step]] = {}
    for step in steps(found.played(phase.asking), found.expert_of):
        if not step.alike(same):
            states.setdefault((step.expert.episode.task_id, step.turn), []).append(step)
    made = [
        (task, "expert", own[0].expert.episode.sample, turn, _text(own, instruction))
        for (task, turn), own in states.items()
    ]
    return sorted(made, key=lambda one: one[0])


def good_or_bad(phase: Phase, found: Round) -> list[Asked]:
    """The questions about bad paths, by task."""
    assert phase.asking is not None
    return questions(found.played(phase.asking), phase.asking.options, found.number)


QUESTIONS = {"why_expert": why_expert, "good_or_bad": good_or_bad}


def _text(own: Sequence[Step], instruction: str) -> str:
    expert, turn = own[0].expert.episode, own[0].turn
    lines = [expert.prompt]
    for one in expert.turns[:turn]:
        lines += [f"Action: {one['action']}", one["observation"]]
    taken = expert.turns[turn]
    lines += ["", f"Action taken: {taken['action']}", f"Answer: {taken['observation']}"]
    told = set()
    for step in own:
        other = step.branch.episode.turns[turn]
        choice = (other["action"] or other["response"], other["observation"])
        if choice not in told:
            told.add(choice)
            lines += [f"Other action: {choice[0]}", f"Answer: {choice[1]}"]
    return "\n".join([*lines, "", instruction])


def _asked(episode: Episode) -> Asked | None:
    about = episode.about
    if about is None:
        return None
    return episode.task_id, about["collection"], about["sample"], about["turn"], episode.prompt


def _blocks(asked: Sequence[Asked], size: int) -> list[list[Asked]]:
    """All questions of so many tasks at a time."""
    tasks = [list(own) for _, own in groupby(asked, key=lambda one: one[0])]
    parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    return [[one for own in part for one in own] for part in parts] or [[]]
