"""What the steps of a phase learn from: every pair once, every weight by the method's formula.

With k pairs in an optimizer step and e trajectories imitated without one:

    weight of a pair             dpo of its source / k
    weight of an imitated side   (sum of sft over its pairs' sources / k + own weight / e) / tokens

by tokens for the mean over a view's trained tokens (`step_plan`), and without for the sum.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from coevo_jax.audit.check import Check, differs, far, judge, same
from coevo_jax.audit.marks import count_problems
from coevo_jax.audit.order import Phase, asked_of
from coevo_jax.audit.pairs import derive
from coevo_jax.audit.reading import RunFiles, read_episodes
from coevo_jax.audit.revised import revisions
from coevo_jax.audit.round import round_of
from coevo_jax.audit.rows import can_teach, fit_rows, surely_fits
from coevo_jax.audit.sides import Side, Turns
from coevo_jax.audit.step_plan import StepPlan, Weighed, course_of, weigh
from coevo_jax.audit.whose import Tasks
from coevo_jax.config.recipe import ImitationSource

ROUNDING = 1e-5  # relative: weights are float32


def plan_check(files: RunFiles, phase: Phase, tasks: Tasks) -> Check:
    """Trajectories, pairs, weights and denominators of every step of a phase."""
    if phase.kind == "warm_start":
        problems = warm_start_problems(files, phase, tasks)
        return judge("plan/warm_start", problems, lambda: "every expert once an epoch, the token mean")
    told: dict[str, int] = {}
    return judge(f"plan/{phase.name}", learn_problems(files, phase, told), lambda: _words(told))


def _words(told: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in told.items()) + ": weights and denominators"


def learn_problems(files: RunFiles, phase: Phase, told: dict[str, int]) -> Iterator[str]:
    """Everything a learning phase's plan says."""
    record = files.record(phase.name)
    yield from noted_problems(files, phase, record)
    if files.records[phase.name]["position"] == 0:
        yield from idle_problems(files, phase, told)
        return
    course = course_of(files, phase)
    plan = course.plan
    steps = plan["steps"]
    told |= {"steps an epoch": len(steps), "pairs": len(course.links), "trajectories": len(course.sides)}
    yield from side_problems(phase.plan, plan, course.sides)
    yield from count_problems(phase.name, record, [course.sides[side] for side, _ in course.extras])
    yield from pair_problems(phase.plan, course, record)
    found_extras: Counter[tuple[int, Turns]] = Counter()
    for number, step in enumerate(steps):
        where = f"{phase.plan}: step {number}"
        yield from step_problems(where, step, course, found_extras)
    for (side, turns), weight in course.extras.items():
        if course.usable[side] and found_extras[side, turns] != 1:
            name = course.sides[side].episode.name
            found = found_extras[side, turns]
            yield f"{phase.plan}: {name}: imitated {found} times with weight {weight}, expected once"
    yield from differs(f"{phase.name}: too_long", len(record["too_long"]), course.usable.count(False))
    yield from differs(f"{phase.name}: cut", record["cut"], course.cut)
    yield from imitated_problems(files, phase, record)
    yield from size_problems(phase, plan, files, steps_to_take(files, phase, plan, course.config.epochs))
    yield from log_problems(files, phase, course)
    paired = any(micro["pairs"] for step in steps for micro in step)
    alone = course.batch.step_episodes if phase.reinforces else course.batch.step_demonstrations
    count = course.batch.step_pairs if paired else alone
    yield from _step_sizes(phase.plan, steps, count, "pairs" if paired else "views")


def imitated_problems(files: RunFiles, phase: Phase, record: Mapping[str, Any]) -> Iterator[str]:
    """How much is imitated without a pair, where some of it not with all turns alike."""
    if phase.kind != "learn":
        return
    turns = [turns for _, turns in derive(files, phase).extras]
    weighed = [own for own in turns if own is not None]
    zeros = sum(weight == 0 for own in weighed for weight in own)
    counts = {"trajectories": len(turns), "weighed": len(weighed), "turns_left_out": zeros}
    yield from differs(f"{phase.name}: imitated", record.get("imitated"), counts if weighed else None)


def noted_problems(files: RunFiles, phase: Phase, record: Mapping[str, Any]) -> Iterator[str]:
    """What builders say that they met beside what they made."""
    found, noted = round_of(files, phase), {}
    for source in phase.sources:
        if isinstance(source, ImitationSource) and source.imitate == "revisions":
            _, met = revisions(found.played(source), source.options, found.number, found.rendering)
            noted |= {source.imitate: met} if met else {}
    own = any(isinstance(source, ImitationSource) and ":" in source.imitate for source in phase.sources)
    if not own:  # a function of the user's own may tell of anything
        yield from differs(f"{phase.name}: noted", record.get("noted"), noted or None)


def log_problems(files: RunFiles, phase: Phase, course: StepPlan) -> Iterator[str]:
    """What the log says of packing is what the record says."""
    record, prefix = files.record(phase.name), f"{phase.agent}/plan/"
    wanted = {name: record[name] for name in ("cut", "dropped_pairs", "padding", "shared")}
    wanted |= {"too_long": len(record["too_long"]), "microbatches": sum(map(len, course.plan["steps"]))}
    lines = [(line, v) for line, _, v in files.metrics.get(phase.name, []) if f"{prefix}cut" in v]
    yield from differs(f"metrics.jsonl: lines of {phase.name} with {prefix}", len(lines), 1)
    for line, values in lines:
        for name, value in wanted.items():
            if not same(values[prefix + name], float(value)):
                yield f"metrics.jsonl:{line}: {prefix}{name}: found {values[prefix + name]}, expected {value}"


def idle_problems(files: RunFiles, phase: Phase, told: dict[str, int]) -> Iterator[str]:
    """A phase took no step because nothing that the recipe gives it fits a row."""
    lesson = derive(files, phase)
    sides, _ = fit_rows(lesson.all_sides, files.config.batch)
    able = sum(side.length <= files.config.batch.row_length for side in sides)
    told |= {"steps, for nothing was there to learn from": 0}
    if able and (lesson.extras or lesson.pairs or lesson.reinforced):
        yield f"{phase.name}: found no optimizer step, expected some: {able} trajectories can be learned from"


def side_problems(path: str, plan: Mapping[str, Any], sides: Sequence[Side]) -> Iterator[str]:
    """The plan's trajectories are the derived ones, in their order and lengths."""
    found = plan["trajectories"]
    for number, (one, side) in enumerate(zip(found, sides, strict=False)):
        wanted = {
            "source": side.source,
            "task_id": side.episode.task_id,
            "sample": side.episode.sample,
            "tokens": side.length,
        } | ({"mark": side.mark} if side.mark else {})
        if one != wanted:
            yield f"{path}: trajectory {number}: found {one}, expected {wanted}"
    yield from differs(f"{path}: trajectories", len(found), len(sides))


def pair_problems(path: str, course: StepPlan, record: Mapping[str, Any]) -> Iterator[str]:
    """Every pair that can be learned from stands in one step, once."""
    placed = Counter(
        pair["pair"] for step in course.plan["steps"] for micro in step for pair in micro["pairs"]
    )
    for pair, count in placed.items():
        if count != 1 or not 0 <= pair < len(course.links):
            yield f"{path}: pair {pair}: stands in {count} places, expected one of {len(course.links)} once"
    dropped = 0
    for pair, link in enumerate(course.links):
        sides = course.sides[link.chosen], course.sides[link.rejected]
        able = can_teach(*sides, link.first, course.batch, course.cut > 0)
        fits = surely_fits(*sides, course.batch, course.config.ld_alpha < 1)
        if placed[pair] and not able:
            yield f"{path}: pair {pair}: found in a step, expected it left out: a side is too long or empty"
        if able and not placed[pair] and fits:
            yield f"{path}: pair {pair}: found in no step, expected in one"
        dropped += not placed[pair]
    yield from differs(f"{path}: pairs left out", record["dropped_pairs"], dropped)


def step_problems(
    where: str, step: Any, course: StepPlan, found_extras: Counter[tuple[int, Turns]]
) -> Iterator[str]:
    """A step's weights, and that its views are those its pairs need."""
    k = sum(len(micro["pairs"]) for micro in step)
    left: list[tuple[str, int, Turns, float]] = []  # what of imitation the pairs do not explain
    for number, micro in enumerate(step):
        place = f"{where}, microbatch {number}"
        views = {view["n"]: view for view in micro["views"]}
        yield from room_problems(place, micro, course)
        used: set[int] = set()
        imitated: dict[tuple[int, Turns], float] = {}
        for one in micro["pairs"]:
            pair = one["pair"]
            yield from far(
                f"{place}: weight of pair {pair}", one["weight"], *_near(course.kind(pair).dpo / k)
            )
            for role, view in zip(("chosen", "rejected"), course.views(pair), strict=True):
                yield from view_problems(f"{place}: {role} of pair {pair}", views[one[role]], view)
                used.add(one[role])
            chosen = course.counted(pair)[0]
            key = chosen.side, chosen.turns
            imitated[key] = imitated.get(key, 0.0) + course.kind(pair).sft / k
        plain = [view for view in micro["views"] if view["trajectory"] not in course.reinforced]
        said = {(view["trajectory"], turns_said(view)) for view in plain}
        for side, turns in sorted(said | imitated.keys(), key=lambda key: (key[0], key[1] or ())):
            found = 0.0
            whole = course.weighed(side, turns)
            for view in (v for v in micro["views"] if (v["trajectory"], turns_said(v)) == (side, turns)):
                if view["sft_weight"] or view["n"] not in used:
                    yield from view_problems(f"{place}: n {view['n']}, imitated", view, whole)
                tokens = max(whole.tokens, 1) if course.config.sft_reduction == "mean" else 1
                found += view["sft_weight"] * tokens
            rest = found - imitated.get((side, turns), 0.0)
            left += [(place, side, turns, rest)] if abs(rest) > ROUNDING * max(found, 1e-3) else []
    for place, side, turns, rest in left:
        weight = course.extras.get((side, turns), 0.0) / len(left)
        name = f"{place}: imitation of {course.sides[side].episode.name} beside its pairs"
        yield from far(name, rest, *_near(weight))
        found_extras[side, turns] += 1


def turns_said(view: Mapping[str, Any]) -> Turns:
    """The weights of its turns that a plan's view says it has."""
    return None if view.get("turns") is None else tuple(map(float, view["turns"]))


def room_problems(place: str, micro: Mapping[str, Any], course: StepPlan) -> Iterator[str]:
    """A microbatch holds no more than its shape, and no less than its longest trajectory."""
    batch = course.batch
    numbers = [view["n"] for view in micro["views"]]
    if len(set(numbers)) < len(numbers) or not all(
        0 <= n < batch.rows * batch.views_per_row for n in numbers
    ):
        yield f"{place}: found the views {sorted(numbers)}, expected different ones of the microbatch's shape"
    if len(micro["pairs"]) > batch.pairs:
        yield f"{place}: found {len(micro['pairs'])} pairs, expected at most {batch.pairs}"
    lengths = [course.sides[view["trajectory"]].length for view in micro["views"]]
    most = min(sum(lengths), batch.rows * batch.row_length)
    if not max(lengths, default=0) <= micro["tokens"] <= most:
        yield f"{place}: tokens: found {micro['tokens']}, expected {max(lengths)} to {most}"


def view_problems(where: str, found: Mapping[str, Any], expected: Weighed) -> Iterator[str]:
    """A view is of the expected trajectory, with the expected turns, tokens and weights."""
    yield from differs(f"{where}: trajectory", found["trajectory"], expected.side)
    yield from differs(f"{where}: weights of its turns", turns_said(found), expected.turns)
    yield from differs(f"{where}: trained tokens", found["tokens"], expected.tokens)
    yield from far(f"{where}: weights of its tokens", found["weight"], *_near(expected.total))


def _near(expected: float) -> tuple[float, float]:
    return expected, ROUNDING * abs(expected)


def size_problems(phase: Phase, plan: Mapping[str, Any], files: RunFiles, taken: int | None) -> Iterator[str]:
    """Numbers of steps and tokens, and that each epoch that is begun visits every step once.

    Args:
      taken: how many steps are to be taken; None where the plan's epochs end too soon to tell.
    """
    steps, record = plan["steps"], files.record(phase.name)
    yield from differs(f"{phase.plan}: phase", plan["phase"], phase.name)
    for epoch, order in enumerate(plan["order"]):
        if sorted(order) != list(range(len(steps))):
            wanted = f"expected each of {len(steps)} steps once"
            yield f"{phase.plan}: order of epoch {epoch}: found {order}, {wanted}"
    if taken is None:
        yield f"{phase.plan}: order: found {len(plan['order'])} epochs, expected as many as the budget takes"
        return
    begun = -(-taken // max(len(steps), 1))
    yield from differs(f"{phase.plan}: epochs", (plan["epochs"], len(plan["order"])), (begun, begun))
    yield from differs(f"{phase.plan}: steps_taken", plan["steps_taken"], taken)
    yield from differs(f"{phase.name}: optimizer steps", files.records[phase.name]["position"], taken)
    tokens = sum(tokens_in_order(plan)[:taken])
    yield from differs(f"{phase.name}: learned_tokens", record.get("learned_tokens", tokens), tokens)
    yield from room_share_problems(phase, plan, files)


def tokens_in_order(plan: Mapping[str, Any]) -> list[int]:
    """The tokens of every step of the epochs that are begun, in the order in which steps are taken."""
    sizes = [sum(micro["tokens"] for micro in step) for step in plan["steps"]]
    return [sizes[number] for epoch in plan["order"] for number in epoch]


def steps_to_take(files: RunFiles, phase: Phase, plan: Mapping[str, Any], epochs: int) -> int | None:
    """All steps of the epochs; or as many as a budget of tokens needs, None where the order ends before."""
    asked = asked_of(files.config, phase, "learned_tokens")
    if asked is None:
        return epochs * len(plan["steps"])
    totals = accumulate(tokens_in_order(plan))
    return next((number for number, total in enumerate(totals, start=1) if total >= asked), None)


def room_share_problems(phase: Phase, plan: Mapping[str, Any], files: RunFiles) -> Iterator[str]:
    """The shares of padding, and of tokens that stand in a row once for several trajectories."""
    batch, record = files.config.batch, files.record(phase.name)
    micros = [micro for step in plan["steps"] for micro in step]
    used = sum(micro["tokens"] for micro in micros)
    lengths = [one["tokens"] for one in plan["trajectories"]]
    alone = sum(lengths[n] for micro in micros for n in {view["trajectory"] for view in micro["views"]})
    wanted = {"padding": 1 - used / (len(micros) * batch.rows * batch.row_length), "shared": 1 - used / alone}
    for name, value in wanted.items():
        if not same(record.get(name, value), value):
            yield f"{phase.name}: {name}: found {record[name]}, expected {value}"


def _step_sizes(path: str, steps: Sequence[Any], count: int | None, what: str) -> Iterator[str]:
    """Steps of an exact number of pairs, the last of what is left; or of one microbatch each."""
    for number, step in enumerate(steps):
        if count is None:
            yield from differs(f"{path}: step {number}: microbatches", len(step), 1)
        elif what == "pairs" or number < len(steps) - 1:
            found = sum(len(micro[what]) for micro in step)
            if found > count or (found < count and number < len(steps) - 1):
                yield f"{path}: step {number}: found {found} {what}, expected {count}"


def warm_start_problems(files: RunFiles, phase: Phase, tasks: Tasks) -> Iterator[str]:
    """Every imitated expert stands in one step; a step's loss is the mean over its trained tokens."""
    plan, config = files.json(phase.plan), files.config
    sides, _ = fit_rows(warm_start_sides(files, tasks), config.batch)
    yield from side_problems(phase.plan, plan, sides)
    whole = [weigh(number, side, 1.0) for number, side in enumerate(sides)]
    seen: Counter[int] = Counter()
    for number, step in enumerate(plan["steps"]):
        views = [view for micro in step for view in micro["views"]]
        total = sum(whole[view["trajectory"]].tokens for view in views)
        for view in views:
            where = f"{phase.plan}: step {number}: n {view['n']}"
            yield from view_problems(where, view, whole[view["trajectory"]])
            yield from far(f"{where}: sft_weight", view["sft_weight"], *_near(1 / max(total, 1)))
            seen[view["trajectory"]] += 1
        yield from differs(f"{phase.plan}: step {number}: pairs", sum(len(m["pairs"]) for m in step), 0)
    for place, side in enumerate(sides):
        wanted = int(side.length <= config.batch.row_length)
        yield from differs(f"{phase.plan}: {side.episode.name}: times an epoch", seen[place], wanted)
    yield from size_problems(phase, plan, files, config.warm_start.epochs * len(plan["steps"]))
    yield from _step_sizes(phase.plan, plan["steps"], config.batch.step_demonstrations, "views")


def warm_start_sides(files: RunFiles, tasks: Tasks) -> list[Side]:
    """The imitated trajectories: an imported set, or the experts of the configured tasks, in their order."""
    imported = files.config.warm_start.data is not None
    path = f"trajectories/{'imported' if imported else 'experts'}.parquet"
    found = list(read_episodes(files.folder / path, ("tokens", "agent_mask")))
    if not imported:
        by_task = {episode.task_id: episode for episode in found}
        ids = tasks.of("train", files.config.warm_start.tasks)
        found = [by_task[task] for task in ids if task in by_task]
    if files.config.warm_start.learn == "text":
        behind_first = [np.r_[False, np.ones(len(one.tokens) - 1, bool)] for one in found]
        found = [replace(one, agent_mask=mask) for one, mask in zip(found, behind_first, strict=True)]
    source = "imported" if imported else "expert"
    return [Side(source=source, episode=episode, length=len(episode.tokens)) for episode in found]
