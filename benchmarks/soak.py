"""Does a long run grow? 300 small rounds in one process, measured after each: python -m benchmarks.soak

python -m benchmarks.soak --rounds 300 --out soak.jsonl --write docs/trust.md
python -m benchmarks.soak --read soak.jsonl                judge again what was measured

The run co-evolves two agents on the tests' toy environment at a learning rate that moves no decision, so
that every round does as much as the others but for what is drawn. After each round it is recorded:

    rss       MiB resident, after a garbage collection; private: those that are pages of no file, which the
              system cannot drop when memory is short
    handles, threads, children    of the process, from /proc (Linux)
    pool      threads of TensorStore's pool, none of those: they come and go with what is written at a time
    kept      bytes of the run's folder that must stay as they are: checkpoints, tokenizer, config and such
    grown     bytes of what a round adds: trajectories, pairs, plans, references, logs, the records of phases
    wall, cpu seconds of the round; CPU seconds are those of the process, all threads

The process keeps freed memory as a command's does (coevo_jax/hosts/allocator.py). Exits with 1 where
something grew.
"""

import argparse
import gc
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from unittest import mock

# Read by jax when it is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from coevo_jax.coevolution import coevolve
from coevo_jax.config.reading import load_config
from coevo_jax.envs.registry import ENVIRONMENTS, EnvSpec
from coevo_jax.hosts import allocator
from coevo_jax.report.markdown import replace_table, require_table, table
from coevo_jax.run_folder.environment import cores, cpu
from coevo_jax.run_folder.results import Results
from coevo_jax.run_folder.run import Run, create_run

LETTERS = EnvSpec(options_at="tests.letters_env:LettersOptions", make_at="tests.letters_env:make_letters")
CONFIG = """\
name: soak
rounds: {rounds}
recipe: coevo
env: {{name: letters}}
tokenizer: {{vocab_size: 300}}
model: {{hidden_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 2, head_dim: 16, intermediate_size: 64}}
batch: {{rows: 4, row_length: 128, views_per_row: 4, pairs: 32}}
warm_start: {{tasks: "0:40", epochs: 4, learning_rate: 1e-2}}
explore: {{tasks: ["40:48"], samples: 2, temperature: 1.0, block_tasks: 8}}
rollout: {{slots: 8, max_tokens: 128, max_turn_tokens: 24, decode_block: 16}}
agents:
  target: {{epochs: 1, learning_rate: [1e-9]}}
  failure: {{epochs: 1, learning_rate: [1e-9]}}
evaluate: {{split: dev, tasks: "0:8"}}
checkpoint: {{every_steps: 4, keep: 2}}
"""
GROWING = ("trajectories", "pairs", "plans", "references", "tensorboard")  # folders of the run's folder
GROWING_FILES = ("metrics.jsonl", "manifest.json", "results.json")
SETTLED = 10  # rounds until all is compiled and every thread is there
EARLY, LATE = 30, 30  # rounds behind those, and the last ones, that are compared
# At most so much more. What is kept differs a little from round to round: checkpoints are compressed.
RSS, TIME, DISK, INCREMENT = 0.02, 0.05, 0.01, 0.05
WORKER = "ts_pool_worker"  # what TensorStore calls the threads of its pool
EVERY = 30  # rounds between two rows of the table


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A process and its run's folder after a round."""

    round: int
    rss: float  # MiB
    private: float  # MiB of it that stand in no file
    handles: int
    threads: int
    children: int
    kept: int  # bytes
    grown: int  # bytes
    wall: float  # seconds of the round
    cpu: float
    pool: int = 0  # threads of TensorStore's pool, which are none of `threads`


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one of the measures grew."""

    name: str
    words: str
    grew: bool


def judge(found: Sequence[Measured]) -> list[Verdict]:
    """What grew between the first rounds after the tenth and the last ones.

    Medians of windows are compared, so that a round beside which the machine did something else does not
    count; what must not move at all is compared by the most that was seen. Memory is looked at twice: the
    tenth round may still have what compiling left, which is given back later and would hide what creeps.
    Later on it rises for some rounds and falls back, again and again: what it falls back to is compared.

    Raises:
      ValueError: there are fewer rounds than two windows take.
    """
    if len(found) < SETTLED + EARLY + LATE:
        raise ValueError(f"found {len(found)} rounds, expected at least {SETTLED + EARLY + LATE}")
    early, late = found[SETTLED - 1 : SETTLED + EARLY], found[-LATE:]
    window = f"rounds {early[0].round}-{early[-1].round} against {late[0].round}-{late[-1].round}"

    def median(own: Sequence[Measured], of: Callable[[Measured], float]) -> float:
        return statistics.median(map(of, own))

    def share(name: str, most: float, of: Callable[[Measured], float], unit: str) -> Verdict:
        before, after = median(early, of), median(late, of)
        more = after / before - 1
        words = f"median {before:.4g} -> {after:.4g} {unit} ({more:+.1%}, at most {most:+.0%}; {window})"
        return Verdict(name=name, words=words, grew=more > most)

    def flat(name: str, of: Callable[[Measured], int]) -> Verdict:
        before, after = max(map(of, early)), max(map(of, late))
        return Verdict(name=name, words=f"most {before} -> {after} ({window})", grew=after > before)

    def memory(name: str, of: Callable[[Measured], float]) -> Verdict:
        before, after = of(found[SETTLED - 1]), max(map(of, found[SETTLED:]))
        more = after / before - 1
        words = f"{before:.1f} MiB after round {SETTLED}, most later {after:.1f} "
        words += f"({more:+.1%}, at most {RSS:+.0%})"
        return Verdict(name=name, words=words, grew=more > RSS)

    third = len(found) // 3
    middle, last_third = found[third : 2 * third], found[-third:]

    def creeping(name: str, of: Callable[[Measured], float]) -> Verdict:
        before, after = min(map(of, middle)), min(map(of, last_third))
        more = after / before - 1
        words = f"falls back to {before:.1f} -> {after:.1f} MiB ({more:+.1%}, at most {RSS:+.0%}; "
        words += "the second third of all rounds against the last)"
        return Verdict(name=name, words=words, grew=more > RSS)

    def pooled(name: str, of: Callable[[Measured], int]) -> Verdict:
        before, after = max(map(of, middle)), max(map(of, last_third))
        words = f"most {before} -> {after} (the second third of all rounds against the last)"
        return Verdict(name=name, words=words, grew=after > before)

    added = [b.grown - a.grown for a, b in pairwise(found)]
    first = statistics.median(added[SETTLED - 1 : SETTLED - 1 + EARLY])
    last = statistics.median(added[-LATE:])
    grows = f"median {first / 1024:.1f} -> {last / 1024:.1f} KiB a round, at most {INCREMENT:+.0%}"
    return [
        memory("resident memory", lambda one: one.rss),
        memory("private memory", lambda one: one.private),
        creeping("resident memory, later on", lambda one: one.rss),
        flat("open handles", lambda one: one.handles),
        flat("threads", lambda one: one.threads),
        pooled("threads of TensorStore's pool", lambda one: one.pool),
        flat("child processes", lambda one: one.children),
        share("disk that must not grow", DISK, lambda one: one.kept, "bytes"),
        Verdict(name="what a round adds to the disk", words=grows, grew=last > first * (1 + INCREMENT)),
        share("CPU seconds of a round", TIME, lambda one: one.cpu, "s"),
    ]


class Watch:
    """Measures a run whenever a round is over."""

    def __init__(self, run: Run, tell: Callable[[Measured], None]) -> None:
        self._run, self._tell, self._last = run, tell, 0
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def look(self, _: Results) -> None:
        """Called after every phase."""
        run = self._run
        newest = run.manifest.done[-1].name if run.manifest.done else ""
        over = [number for number in (round_of(newest),) if number > self._last]
        if not over or newest.rpartition("/")[2] != run.config.recipe[-1].name:
            return
        wall, spent = time.monotonic() - self._wall, time.process_time() - self._cpu
        self._last = over[0]
        gc.collect()
        kept, grown = disk(run.folder)
        names = threads()
        self._tell(
            Measured(
                round=self._last,
                rss=resident(),
                private=resident(shared=False),
                handles=len(os.listdir("/proc/self/fd")) - 1,  # without the one that lists them
                threads=len(names) - names.count(WORKER),
                pool=names.count(WORKER),
                children=children(),
                kept=kept,
                grown=grown,
                wall=wall,
                cpu=spent,
            )
        )
        self._wall, self._cpu = time.monotonic(), time.process_time()


def round_of(phase: str) -> int:
    """The round that a phase's name has; 0 before the first."""
    begin = phase.partition("/")[0].removeprefix("round-")
    return int(begin) if begin.isdecimal() else 0


def resident(shared: bool = True) -> float:
    """MiB of this process that are in memory, with or without pages of files."""
    _, every, files, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (every if shared else every - files) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def threads() -> list[str]:
    """What the system calls the threads of this process."""
    names = []
    for path in Path("/proc/self/task").iterdir():
        try:
            names.append((path / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return names


def children() -> int:
    """Living child processes of all threads."""
    found = Path("/proc/self/task").glob("*/children")
    return sum(len(path.read_text().split()) for path in found)


def disk(folder: Path) -> tuple[int, int]:
    """Bytes of a run's folder: of what must stay as it is, and of what grows with the rounds."""
    sizes = {True: 0, False: 0}
    for path in folder.rglob("*"):
        if path.is_file():
            own = path.relative_to(folder)
            sizes[own.parts[0] in GROWING or str(own) in GROWING_FILES] += path.stat().st_size
    return sizes[False], sizes[True]


def create_small(folder: Path, rounds: int) -> Run:
    """The small run, which has done nothing yet."""
    path = folder / "soak.yaml"
    path.write_text(CONFIG.format(rounds=rounds))
    with mock.patch.dict(ENVIRONMENTS, {"letters": LETTERS}):
        return create_run(load_config(path, [f"runs_dir={folder / 'runs'}"]))


def soak(rounds: int, folder: Path, tell: Callable[[Measured], None]) -> None:
    """Train the run, and tell of each of its rounds."""
    with mock.patch.dict(ENVIRONMENTS, {"letters": LETTERS}):
        run = create_small(folder, rounds)
        watch, show = Watch(run, tell), run.show

        def show_and_look(results: Results) -> None:
            show(results)
            watch.look(results)

        try:
            with mock.patch.object(run, "show", show_and_look):
                coevolve(run)
        finally:
            run.close()


def rounds_table(found: Sequence[Measured]) -> str:
    """Every thirtieth round, the tenth and the last."""
    header = (
        "round",
        "RSS, MiB",
        "private, MiB",
        "handles",
        "threads",
        "pool",
        "children",
        "kept, KiB",
        "grown, KiB",
    )
    header += ("wall, s", "CPU, s")
    last = found[-1].round
    rows = [
        (
            *(
                str(one.round),
                f"{one.rss:.1f}",
                f"{one.private:.1f}",
                str(one.handles),
                str(one.threads),
                str(one.pool),
                str(one.children),
            ),
            *(f"{one.kept / 1024:.1f}", f"{one.grown / 1024:.0f}", f"{one.wall:.2f}", f"{one.cpu:.2f}"),
        )
        for one in found
        if one.round % EVERY == 0 or one.round in (SETTLED, last)
    ]
    return table(header, rows)


def verdict_lines(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(f"- {one.name}: {'GREW' if one.grew else 'flat'}: {one.words}" for one in verdicts)


def read(path: Path) -> list[Measured]:
    """What an earlier call measured."""
    return [Measured(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="keep what is measured, a JSON object a line"
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="run nothing: judge what was kept")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table into a page, too")
    args = parser.parse_args(argv)
    if args.write:
        require_table("soak", args.write)
    found: list[Measured] = read(args.read) if args.read else []
    if not args.read:
        if args.out:
            args.out.write_text("")

        def tell(one: Measured) -> None:
            found.append(one)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(one)) + "\n")

        with tempfile.TemporaryDirectory() as folder:
            soak(args.rounds, Path(folder), tell)
    verdicts = judge(found)
    text = (
        f"{rounds_table(found)}\n\n{verdict_lines(verdicts)}\n\n{len(found)} rounds, "
        f"{sum(one.wall for one in found):.0f} s. Made on {cpu()}, {cores()} cores, by "
        f"`python -m benchmarks.soak {shlex.join(sys.argv[1:] if argv is None else argv)}`."
    )
    print(text)
    if args.write:
        replace_table("soak", text, args.write)
    return 1 if any(one.grew for one in verdicts) else 0


if __name__ == "__main__":
    allocator.begin(os.environ, sys.orig_argv)
    sys.exit(main())
