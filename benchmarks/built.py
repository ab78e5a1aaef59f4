"""Write what each recipe built in a round of a run into docs/methods.md.

python -m benchmarks.built runs/quickstart-cso runs/quickstart-eef ...

A row is read off the manifest and results of a run; the checks of `launch.audit` are made anew, and counted.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.audit.audit import run_audit
from coevo_jax.config.strict import ConfigError
from coevo_jax.report.markdown import machines, replace_table, require_table, table
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.results import Results, load_results

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
HEADER = ("recipe", "explored", "built", "learned tokens", "minutes", "success, before and after", "audit")
Record = Mapping[str, Any]


def explored(name: str, record: Record) -> str:
    """What an exploring phase played, in words; empty for a phase that does not explore."""
    tokens = f"{record.get('agent_tokens', 0):,} tokens"
    if "adaptation" in record:
        return f"{record['adaptation']['episodes']:,} test episodes one after another, {tokens}"
    if "questions" in record:
        return f"{record['questions']:,} answers, {tokens}"
    if "points" in record:
        return f"{record['summary']['n']:,} branches of {record['points']:,} states, {tokens}"
    return f"{record['summary']['n']:,} episodes, {tokens}" if "/explore_" in name else ""


def built(record: Record) -> Iterator[str]:
    """What a learning phase had built for it, in words."""
    for pair in record.get("pairs", ()):
        turns = ", ".join(f"turn {turn}: {n}" for turn, n in pair.get("by_turn", {}).items())
        yield f"{pair['count']} `{pair['kind']}` pairs of {pair['tasks']} tasks" + (
            f" ({turns})" if turns else ""
        )
    for mark in record.get("marks", ()):
        yield f"{mark['count']} under “{mark['mark'].removeprefix('{task} ')}”"
    for name, notes in record.get("noted", {}).items():
        yield f"{name}: " + ", ".join(f"{count} {words}" for words, count in notes.items())
    for one in record.get("reinforced", ()):
        yield f"{one['turns']:,} turns of {one['count']:,} episodes reinforced"
    if "judged" in record:
        right = f"{record['judged']['accuracy']:.0%} told apart"
        yield f"a discriminator of {record['own']} own and {record['expert']} expert steps, {right}"
    elif "imitated" in record:
        one = record["imitated"]
        yield f"{one['trajectories']} imitated, {one['turns_left_out']} turns of {one['weighed']} left out"
    elif not any(record.get(key) for key in ("pairs", "marks", "reinforced")):
        yield f"{record['trajectories']} imitated"
    if "beside" in record:
        yield f"{record['beside']['drawn']} of {record['beside']['trajectories']} drawn"


def row(folder: Path, results: Results) -> tuple[str, ...]:
    """A run's row: what its first round's phases explored and built, what it cost, and what held of it."""
    done = [phase for phase in read_manifest(folder).done if phase.name.startswith("round-01/")]
    played = [explored(phase.name, phase.records) for phase in done]
    learned = [phase for phase in done if "learned_tokens" in phase.records or "judged" in phase.records]
    lessons = [words for phase in learned for words in built(phase.records)]
    before, after = (
        next(one for one in results["evaluations"] if one["round"] == number and "name" not in one)
        for number in (0, 1)
    )
    states = [check.state for check in run_audit(folder)]
    held, broken = states.count("held"), states.count("BROKEN")
    return (
        f"`{results['method']}`",
        "; ".join(filter(None, played)) or "–",
        "; ".join(lessons),
        f"{sum(phase.records.get('learned_tokens', 0) for phase in learned):,}",
        f"{sum(phase.seconds for phase in done) / 60:.1f}",
        f"{before['success_rate']:.1%}, {after['success_rate']:.1%}",
        f"{held} held, {broken} broken, {len(states) - held - broken} not checkable",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder of a run of one round or more"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: docs/methods.md)")
    options = parser.parse_args(argv)
    try:
        require_table("built", options.page)
        runs = {folder: load_results(folder) for folder in options.runs}
        rows = [row(folder, results) for folder, results in runs.items()]
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    where = f"Measured on {'; '.join(machines([*runs.values()]))}."
    replace_table("built", f"{table(HEADER, rows)}\n\n{where}", options.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
