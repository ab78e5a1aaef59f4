"""Whether two checkouts make the same runs, bit by bit: python -m benchmarks.same_bits OLD NEW

Every case of `benchmarks.same_bits_cases` is run on both, each by a process of its own in that checkout, with
one interpreter, the same XLA flags and the same cores. Compared are the phases and what they recorded,
trajectories column by column, pairs, plans, all other committed files, every checkpoint's arrays, the metrics
log and the results. Left out are times, speeds and memory, the environment, and the config as it is written.

    --config NAME        only this case (may be repeated)
    --cores 0,1          the cores that both sides run on (default: all that this process has)
    --keep FOLDER        keep the runs there; one that is there already is not made again
    --override NEW=TEXT  an override for one side, NEW or OLD, to see that a difference is found
    --renamed OLD=NEW    a part of a name that is another on the new side
    --added KIND:NAME    what the new side alone has, such as results:agents

Exits with 1 where a case differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pyarrow.parquet as pq

from benchmarks.same_bits_cases import CASES, Case, Form

XLA_FLAGS = "--xla_force_host_platform_device_count=1"
TIMED = ("_per_second", "seconds", "batch_wait_share", "env_wait_share", "device_busy_share", "mfu")
LEFT_OUT = {"environment", "config", "peak_memory_bytes", "seconds"}  # of results.json
Values = dict[str, Any]  # name -> plain data or an array


def form_of(checkout: Path) -> Form:
    """Which words a checkout's configs have."""
    return "new" if (checkout / "configs" / "recipes").is_dir() else "old"


def make_run(case: Case, checkout: Path, folder: Path, overrides: Sequence[str]) -> Path:
    """Run a case on a checkout; returns the run's folder."""
    run = folder / "runs" / "run"
    if (run / "results.json").is_file():
        return run
    shutil.rmtree(run, ignore_errors=True)  # one that was broken off
    folder.mkdir(parents=True, exist_ok=True)
    config = checkout / case.config if case.config else folder / "case.yaml"
    if case.config is None:
        config.write_text(case.text(form_of(checkout)))
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": XLA_FLAGS,
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),  # its own: nothing of the other side's
    }
    command = [sys.executable, "-m", case.module, str(config), f"runs_dir={run.parent}", *case.overrides]
    done = subprocess.run(
        [*command, *overrides],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return run


def _without_times(value: Any) -> Any:
    """Plain data without the keys that a clock decides."""
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items() if not key.endswith(TIMED)}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def read_phases(run: Path) -> Values:
    """What every finished phase recorded, in their order."""
    done = json.loads((run / "manifest.json").read_text())["done"]
    found: Values = {"order": [record["name"] for record in done]}
    for record in done:
        found[record["name"]] = _without_times({key: record[key] for key in ("position", "records")})
        found[f"{record['name']}: files"] = sorted(record["files"])
    return found


def read_trajectories(run: Path) -> Values:
    """Every column of every file of trajectories."""
    found: Values = {}
    for path in sorted((run / "trajectories").rglob("*.parquet")):
        table = pq.read_table(path)
        columns = {name: table.column(name) for name in table.column_names}
        found |= {f"{path.relative_to(run)}: {name}": one.to_pylist() for name, one in columns.items()}
    return found


def read_pairs(run: Path) -> Values:
    paths = sorted((run / "pairs").rglob("*.jsonl"))
    return {str(path.relative_to(run)): _lines(path) for path in paths}


def read_plans(run: Path) -> Values:
    paths = sorted((run / "plans").rglob("*.json"))
    return {str(path.relative_to(run)): json.loads(path.read_text()) for path in paths}


def read_others(run: Path) -> Values:
    """The sha256 of what else was committed, such as the tokenizer and the references."""
    done = json.loads((run / "manifest.json").read_text())["done"]
    files = {path: digest for record in done for path, digest in record["files"].items()}
    known = ("trajectories/", "pairs/", "plans/")
    return {path: digest for path, digest in sorted(files.items()) if not path.startswith(known)}


def read_checkpoints(run: Path) -> Values:
    """Every array of every checkpoint of every agent, parameters and moments."""
    found: Values = {}
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        for place in sorted((run / "checkpoints").glob("*/*"), key=lambda one: (int(one.parent.name), one)):
            if place.is_dir():
                arrays = _arrays(checkpointer.restore(place))
                found |= {f"{place.relative_to(run)}: {name}": array for name, array in arrays}
    return found


def _arrays(tree: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from _arrays(tree[key], f"{name}/{key}" if name else str(key))
    elif isinstance(tree, (list, tuple)):
        for index, one in enumerate(tree):
            yield from _arrays(one, f"{name}/{index}")
    elif tree is not None:
        yield name, np.asarray(tree)


def read_metrics(run: Path) -> Values:
    """The metrics log line by line."""
    return {
        f"metrics.jsonl:{number}": _without_times(line)
        for number, line in enumerate(_lines(run / "metrics.jsonl"), start=1)
    }


def read_results(run: Path) -> Values:
    results = json.loads((run / "results.json").read_text())
    return {key: _without_times(value) for key, value in results.items() if key not in LEFT_OUT}


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


KINDS = {
    "phases": read_phases,
    "trajectories": read_trajectories,
    "pairs": read_pairs,
    "plans": read_plans,
    "other files": read_others,
    "checkpoints": read_checkpoints,
    "metrics": read_metrics,
    "results": read_results,
}


def count(value: Any) -> int:
    """How many values stand in plain data or an array."""
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        return sum(map(count, value.values()))
    return sum(map(count, value)) if isinstance(value, list) else 1


def difference(old: Any, new: Any, place: str) -> str | None:
    """Where two values differ first, in words; None where they are equal bit by bit."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        return _array_difference(old, new, place)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            where = f"{place}: {key}" if place else key
            if key not in old or key not in new:
                return f"{where}: only in the {'new' if key in new else 'old'} run"
            if found := difference(old[key], new[key], where):
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        for index, (one, other) in enumerate(zip(old, new, strict=False)):
            if found := difference(one, other, f"{place}[{index}]"):
                return found
        return None if len(old) == len(new) else f"{place}: {len(old)} entries, then {len(new)}"
    same = type(old) is type(new) and repr(old) == repr(new)  # so that NaN is itself, and 0.0 is not -0.0
    return None if same else f"{place}: {_short(old)}, then {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _array_difference(old: np.ndarray, new: np.ndarray, place: str) -> str | None:
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"{place}: {old.dtype}{old.shape}, then {new.dtype}{new.shape}"
    if old.tobytes() == new.tobytes():
        return None
    size = old.dtype.itemsize
    bits = [np.frombuffer(one.tobytes(), np.uint8).reshape(-1, size) for one in (old, new)]
    where = int(np.flatnonzero((bits[0] != bits[1]).any(axis=1))[0])
    return f"{place}: value {where}: {old.reshape(-1)[where]!r}, then {new.reshape(-1)[where]!r}"


def renamed(values: Values, names: dict[str, str]) -> Values:
    """The old side's values under the new side's names."""
    for old, new in names.items():
        values = {name.replace(old, new): value for name, value in values.items()}
    return values


def compare(
    old: Path, new: Path, names: dict[str, str], added: Sequence[str] = ()
) -> Iterator[tuple[str, int, str | None]]:
    """For each kind: how many values the old run has of it, and the first difference or None."""
    for kind, read in KINDS.items():
        ours, theirs = renamed(read(old), names), read(new)
        theirs = {name: one for name, one in theirs.items() if name in ours or f"{kind}:{name}" not in added}
        yield kind, count(ours), difference(ours, theirs, "")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_bits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, metavar="OLD_CHECKOUT")
    parser.add_argument("new", type=Path, metavar="NEW_CHECKOUT")
    parser.add_argument("--config", action="append", choices=sorted(CASES), help="default: all")
    parser.add_argument("--cores", default=",".join(map(str, sorted(os.sched_getaffinity(0)))))
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--override", action="append", default=[], metavar="SIDE=TEXT")
    parser.add_argument("--renamed", action="append", default=[], metavar="OLD=NEW")
    parser.add_argument("--added", action="append", default=[], metavar="KIND:NAME")
    return parser.parse_args(argv)


def run_both(name: str, args: argparse.Namespace, scratch: Path) -> tuple[Path, Path]:
    """The folders of a case's run on the old checkout and on the new one."""
    runs = []
    for side in ("old", "new"):
        own = [text.partition("=")[2] for text in args.override if text.lower().startswith(f"{side}=")]
        runs.append(make_run(CASES[name], getattr(args, side).resolve(), scratch / name / side, own))
    return runs[0], runs[1]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})  # child processes inherit it
    names = dict(text.split("=", 1) for text in args.renamed)
    print(f"python {sys.version.split()[0]}, XLA_FLAGS={XLA_FLAGS}, cores {args.cores}")
    for side in ("old", "new"):
        checkout = getattr(args, side)
        command = ["git", "-C", str(checkout), "log", "-1", "--format=%h %s"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        print(f"{side}: {commit} (configs of the {form_of(checkout)} form)")
    print(
        f"names that may differ: {names or 'none'}; only new: {', '.join(args.added) or 'none'}", flush=True
    )
    differing = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.config or CASES:
            old, new = run_both(name, args, args.keep or Path(scratch))
            for kind, values, found in compare(old, new, names, args.added):
                differing += found is not None
                print(f"{name}: {kind}: {found or f'equal ({values:,} values)'}", flush=True)
    print("every value is equal" if not differing else f"{differing} kinds of values differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
