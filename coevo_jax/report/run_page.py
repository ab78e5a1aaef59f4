"""The parts of a run's page: key figures, rounds, explorations, histograms, pairs and time."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from coevo_jax.episode_stats.summary import Summary
from coevo_jax.report.cast import (
    Cast,
    agent_name,
    agent_words,
    branch_lines,
    cast_of,
    collection_of,
    fault_lines,
    feedback_lines,
    kind_name,
    mark_lines,
)
from coevo_jax.report.charts import Series, histogram, line_chart
from coevo_jax.report.comparison import best_evaluation, final_evaluation
from coevo_jax.report.page import details, facts, note, section, table, tiles
from coevo_jax.report.timeline import phases_chart
from coevo_jax.report.words import (
    BETWEEN,
    bounds,
    count,
    duration,
    memory,
    number,
    percent,
    pull_ratio,
    round_name,
    signed,
)
from coevo_jax.run_folder.results import (
    Evaluation,
    Exploration,
    Results,
    evaluation_label,
    main_evaluations,
    skipped_note,
    time_between_phases,
    wall_time,
)

_SETTINGS = {
    "Tasks imitated": "warm_start.tasks",
    "Tasks explored": "explore.tasks",
    "Roll-outs per task": "explore.samples",
    "Temperature": "explore.temperature",
}
_MODEL_SETTINGS = {
    "Layers": "model.num_layers",
    "Width": "model.hidden_size",
    "Compute type": "model.dtype",
}
_AGENT_SETTINGS = {
    "Preference loss": "loss",
    "Beta per round": "beta",
    "Learning rate": "learning_rate",
    "Reference policy": "reference",
}


def header(results: Results) -> str:
    """Title, key figures, collapses and the settings of the run."""
    rounds = "1 round" if results["rounds"] == 1 else f"{results['rounds']} rounds"
    lead = f"{results['method']} on {results['env']}, seed {results['seed']}, {rounds}"
    return "\n".join(
        [
            f"<h1>{escape(results['name'])}</h1>",
            f'<p class="lead">{escape(lead)}</p>',
            tiles(_key_figures(results)),
            _collapses(results),
            facts(_settings(results)),
            details("All settings", json.dumps(results["config"], indent=2, ensure_ascii=False)),
            details("Versions and devices", json.dumps(results["environment"], indent=2, ensure_ascii=False)),
        ]
    )


def rounds_section(results: Results) -> str:
    """Held-out evaluation after every round: curves and a table."""
    evaluations = results["evaluations"]
    if not evaluations:
        return section("rounds", "Rounds", '<p class="empty">No evaluation yet.</p>')
    explanation = (
        f"Evaluation on the {evaluations[0]['split']} split. Bands are 95 % bootstrap intervals over tasks. "
        "Environment faults are counted but enter no mean."
    )
    cast = cast_of(results)
    threshold = evaluations[0]["hard_negative_threshold"]
    hard = (
        f"A hard negative is a failure with reward of at least {threshold:g}: a measure, not a filter. "
        "Its two shares can move apart, because an agent that fails less also leaves fewer hard negatives."
    )
    charts = [
        _rounds_chart(cast, evaluations, "Mean reward", "mean_reward", "mean_reward_ci", False),
        _rounds_chart(cast, evaluations, "Success rate", "success_rate", "success_rate_ci", True),
        _rounds_chart(cast, evaluations, "Failures' mean reward", "mean_failure_reward", None, False),
        _rounds_chart(
            cast, evaluations, "Hard negatives of all roll-outs", "hard_negative_share", None, True
        ),
        _rounds_chart(
            cast, evaluations, "Hard negatives of failures", "hard_negative_share_of_failures", None, True
        ),
        _rounds_chart(cast, evaluations, "Turns per episode", "mean_turns", None, False),
    ]
    places = [(f"{round_name(e['round'])}", cast.evaluation_name(evaluation_label(e))) for e in evaluations]
    grid = f'<div class="charts">{"".join(charts)}</div>'
    rows = _summary_table(("Round", "Agent"), places, evaluations)
    broken = fault_lines(evaluations, [" · ".join(place) for place in places])
    marks = [*map(note, broken)]
    marks += [note(line) for lines in (mark_lines, feedback_lines) for line in lines(cast, evaluations)]
    return section("rounds", "Rounds", note(explanation), *marks, grid, note(hard), rows)


def histograms_section(results: Results) -> str:
    """Reward histograms of all agents after every round."""
    cast = cast_of(results)
    by_round: dict[int, list[tuple[str, str, Sequence[int]]]] = {}
    for e in results["evaluations"]:
        name = evaluation_label(e)
        side = (cast.evaluation_name(name), cast.evaluation_tone(name), e["histogram"])
        by_round.setdefault(e["round"], []).append(side)
    if not by_round:
        return ""
    charts = "".join(histogram(round_name(number), sides) for number, sides in sorted(by_round.items()))
    text = "Share of evaluation roll-outs per reward. Solved episodes (reward 1) stand apart on the right."
    return section("rewards", "Rewards", note(text), f'<div class="charts">{charts}</div>')


def explorations_section(results: Results) -> str:
    """Roll-outs on training tasks: what the failures are worth, and how diverse they are."""
    explorations = results["explorations"]
    if not explorations:
        return ""
    cast = cast_of(results)
    text = (
        "Roll-outs on the training tasks, from which pairs are made. Distinct sequences: different action "
        "sequences per failure. Duplicates: failures that repeat another failure of the same task."
    )
    charts = [
        _exploration_chart(cast, explorations, "Success rate", lambda e: e["success_rate"]),
        _exploration_chart(
            cast, explorations, "Failures' mean reward", lambda e: e["mean_failure_reward"], False
        ),
        _exploration_chart(
            cast, explorations, "Hard negatives of failures", lambda e: e["hard_negative_share_of_failures"]
        ),
        _exploration_chart(
            cast, explorations, "Distinct action sequences", lambda e: e["diversity"]["distinct_sequences"]
        ),
        _exploration_chart(
            cast, explorations, "Distinct word pairs in actions", lambda e: e["diversity"]["distinct_bigrams"]
        ),
        _exploration_chart(cast, explorations, "Duplicate failures", lambda e: e["diversity"]["duplicates"]),
    ]
    places = [(round_name(e["round"]), cast.phase_name(e["phase"])) for e in explorations]
    grid = f'<div class="charts">{"".join(charts)}</div>'
    rows = _summary_table(("Round", "Phase"), places, explorations)
    faults = fault_lines(explorations, [" · ".join(place) for place in places])
    rows += "".join(f"<p>{escape(line)}</p>" for line in (*branch_lines(explorations), *faults))
    return section("exploration", "Exploration", note(text), grid, rows)


def pairs_section(results: Results) -> str:
    """How many pairs of each kind each agent learned from."""
    if not results["pairs"]:
        return ""
    columns = ("Round", "Agent", "Kind", "Pairs", "Tasks", "Mean reward gap")
    rows = [
        (
            round_name(p["round"]),
            escape(agent_name(p["agent"])),
            escape(kind_name(p["kind"])),
            count(p["count"]),
            count(p["tasks"]),
            number(p["mean_reward_gap"]),
        )
        for p in results["pairs"]
    ]
    return section("pairs", "Preference pairs", table(columns, rows, left=(0, 1, 2)))


def pulls_section(results: Results) -> str:
    """How hard preferences and imitation pull at the start of each round's learning."""
    if not results["pulls"]:
        return ""
    text = (
        "How hard each term of the objective pulls on the log-probability of a step's chosen sides, before "
        "the first step: lambda_dpo * beta / 2 a pair for DPO; lambda_sft a chosen side for SFT, over its "
        "tokens where their mean is taken. Where imitation pulls far harder, the method is mostly that."
    )
    columns = ("Round", "Agent", "Preferences", "Imitation", "Preferences : imitation")
    rows = [
        (
            round_name(p["round"]),
            escape(agent_name(p["agent"])),
            f"{p['preference']:.2g}",
            f"{p['sft']:.2g}",
            pull_ratio(p["preference"], p["sft"]),
        )
        for p in results["pulls"]
    ]
    title = "Pull on the chosen sides at a round's start"
    return section("pulls", title, note(text), table(columns, rows, left=(0, 1)))


def time_section(results: Results) -> str:
    """Wall time of every phase and of what lies between them, and the peak memory."""
    cast = cast_of(results)
    total = wall_time(results)
    times = [(cast.phase_name(one["name"]) + skipped_note(one), one["seconds"]) for one in results["phases"]]
    if between := time_between_phases(results):
        times.append((BETWEEN, between))
    rows = []
    for name, seconds in times:
        share = seconds / total if total else 0.0
        meter = f'<span class="meter"><i style="width:{100 * share:.1f}%"></i></span>'
        rows.append((escape(name), duration(seconds), percent(share), meter))
    peak = note(f"Peak memory: {memory(results['peak_memory_bytes'])}.")
    if not rows:
        return section("time", "Time and memory", peak)
    footer = ("All", duration(total), "", "")
    chart = f'<div class="charts whole">{phases_chart([(results["name"], results)])}</div>'
    grid = table(("Phase", "Wall time", "Share", ""), rows, footer=footer)
    return section("time", "Time and memory", peak, chart, grid)


def _key_figures(results: Results) -> list[tuple[str, str, str]]:
    last, best, lead = final_evaluation(results), best_evaluation(results), results["agents"][0]
    first = next((e for e in main_evaluations(results, lead) if e["round"] == 0), None)
    figures = []
    if last:
        figures.append(
            (number(last["mean_reward"]), "mean reward, last round", bounds(last["mean_reward_ci"]))
        )
    if last and first and last["mean_reward"] is not None and first["mean_reward"] is not None:
        change = signed(last["mean_reward"] - first["mean_reward"])
        figures.append((change, "since warm start", f"from {number(first['mean_reward'])}"))
    if last:
        figures.append(
            (percent(last["success_rate"]), "success, last round", f"{count(last['n'])} roll-outs")
        )
        share = percent(last["hard_negative_share_of_failures"])
        figures.append((percent(last["hard_negative_share"]), "hard negatives", f"{share} of failures"))
    if best and last and best["round"] != last["round"]:
        figures.append(
            (number(best["mean_reward"]), "best round", f"{round_name(best['round'])}, optimistic")
        )
    time = duration(wall_time(results))
    figures.append((time, "wall time", f"peak memory {memory(results['peak_memory_bytes'])}"))
    return figures


def _collapses(results: Results) -> str:
    lines = [
        f"<p><b>{escape(round_name(c['round']))}, {escape(agent_name(c['agent']))}:</b> "
        f"{escape(c['why'])}.</p>"
        for c in results["collapses"]
    ]
    return f'<div class="warn" role="note">{"".join(lines)}</div>' if lines else ""


def _settings(results: Results) -> list[tuple[str, str]]:
    shown = [("Environment", results["env"]), ("Parameters", count(results["parameters"]))]
    config = results["config"]
    shown += _found({label: _at(config, *key.split(".")) for label, key in _SETTINGS.items()})
    shown += _found(_agent_settings(config, results["agents"]))
    return shown + _found({label: _at(config, *key.split(".")) for label, key in _MODEL_SETTINGS.items()})


def _agent_settings(config: dict[str, Any], agents: Sequence[str]) -> dict[str, Any]:
    """Options of the agents that learn: one line where they agree, else one for each agent.

    Before recipes, agents stood at the top of a config.
    """
    places = {agent: _at(config, "agents", agent) or _at(config, agent) for agent in agents}
    found: dict[str, Any] = {}
    for label, key in _AGENT_SETTINGS.items():
        values = {agent: _at(place, key) for agent, place in places.items()}
        values = {agent: value for agent, value in values.items() if value is not None}
        if any(value != next(iter(values.values())) for value in values.values()):
            found |= {f"{label}, {agent_words(agent)}": value for agent, value in values.items()}
        else:
            found[label] = next(iter(values.values()), None)
    return found


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _found(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """The settings that a config has, as text."""
    shown = []
    for label, value in settings.items():
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if values:
            shown.append((label, ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)))
    return shown


def _rounds_chart(
    cast: Cast, evaluations: Sequence[Evaluation], title: str, key: str, interval: str | None, share: bool
) -> str:
    series = []
    named = dict.fromkeys([*cast.agents, *map(evaluation_label, evaluations)])
    labels = sorted(named, key=cast.evaluation_place)
    for label in labels:
        own = [e for e in evaluations if evaluation_label(e) == label and e[key] is not None]
        band = [tuple(e[interval]) if e[interval] else None for e in own] if interval else None
        points = [(e["round"], e[key]) for e in own]
        name, tone = cast.evaluation_name(label), cast.evaluation_tone(label)
        series.append(Series(name=name, tone=tone, points=points, band=band, dots=True))
    ticks = _round_ticks(e["round"] for e in evaluations)
    return line_chart(title, series, x_label="round", percent=share, x_ticks=ticks)


def _exploration_chart(
    cast: Cast, explorations: Sequence[Exploration], title: str, value: Any, share: bool = True
) -> str:
    series = []
    for phase in dict.fromkeys(e["phase"] for e in explorations):
        points = [
            (e["round"], value(e)) for e in explorations if e["phase"] == phase and value(e) is not None
        ]
        collection = collection_of(phase)
        name, tone = cast.collection_name(collection), cast.collection_tone(collection)
        series.append(Series(name=name, tone=tone, points=points, dots=True))
    ticks = _round_ticks(e["round"] for e in explorations)
    return line_chart(title, series, x_label="round", percent=share, x_ticks=ticks)


def _summary_table(
    places: tuple[str, str], names: Sequence[tuple[str, str]], entries: Sequence[Summary]
) -> str:
    columns = (
        *places,
        "Roll-outs",
        "Faults",
        "Mean reward",
        "Success",
        "Hard neg.",
        "… of failures",
        "Failures' reward",
        "Turns",
        "Agent tokens",
        "Cut by turn / token limit",
    )
    rows = [
        (
            escape(first),
            escape(second),
            count(e["n"]),
            count(e["faults"]),
            f"{number(e['mean_reward'])} <small>{bounds(e['mean_reward_ci'])}</small>",
            percent(e["success_rate"]),
            percent(e["hard_negative_share"]),
            percent(e["hard_negative_share_of_failures"]),
            number(e["mean_failure_reward"]),
            number(e["mean_turns"], 1),
            number(e["mean_agent_tokens"], 0),
            f"{count(e['endings'].get('turn_limit'))} / {count(e['endings'].get('token_limit'))}",
        )
        for (first, second), e in zip(names, entries, strict=True)
    ]
    return table(columns, rows, left=(0, 1))


def _round_ticks(rounds: Any) -> list[tuple[float, str]]:
    numbers = sorted(set(rounds))
    step = max(1, len(numbers) // 8)
    return [(float(n), "warm start" if n == 0 else str(n)) for n in numbers[::step]]
