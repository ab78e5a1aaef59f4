"""Small runs of every method, whole and undisturbed, with copies of their folder after each commit."""

import contextlib
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import coevo_jax.run_folder.run as run_module
from benchmarks.faults.letters import HANG, KILLED, FaultyOptions
from benchmarks.same_bits import compare
from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main as train_main
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.registry import ENVIRONMENTS, EnvSpec

LETTERS = EnvSpec(
    options_at="benchmarks.faults.letters:FaultyOptions", make_at="benchmarks.faults.letters:make_faulty"
)
TEXT = """\
name: {name}
method: {name}
rounds: 1
recipe: coevo
env: {{name: letters, step_timeout: 60.0}}
tokenizer: {{vocab_size: 300}}
model: {{hidden_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 2, head_dim: 16, intermediate_size: 64}}
batch: {{rows: 4, row_length: 128, views_per_row: 4, pairs: 32}}
warm_start: {{tasks: "0:24", epochs: 8, learning_rate: 1e-2}}
explore: {{tasks: ["24:34"], samples: 2, temperature: 1.0, block_tasks: 5}}
rollout: {{slots: 4, max_tokens: 128, max_turn_tokens: 24, decode_block: 16}}
evaluate: {{split: dev, tasks: "0:6"}}
checkpoint: {{every_steps: 4, keep: 2}}
"""
OPTIONS: dict[str, tuple[str, ...]] = {  # what a method needs beside its recipe, as its quickstart has it
    "sft": ("rounds=0",),
    "stepagent-inverse": (
        "batch.views_per_row=24",
        "batch.step_episodes=16",
        "agents.target.surrogate.kl=0.05",
    ),
    "stepagent-reward": ("batch.views_per_row=24",),
    "gigpo": ("batch.views_per_row=24", "batch.step_episodes=16", "explore.samples=3"),
    "grpo": ("batch.views_per_row=24", "batch.step_episodes=16", "explore.samples=3"),
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended, as a user sees it."""

    code: int
    out: str
    error: str

    @property
    def traceback(self) -> bool:
        told = self.code != 1 and self.words.startswith("error: ")  # Orbax' threads may have had their say
        return "Traceback (most recent call last)" in self.error and not told

    @property
    def words(self) -> str:
        """The last line that tells why."""
        lines = [line for line in self.error.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def train(*arguments: str) -> Ended:
    """`launch.train` in this process, as the command line would run it."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            run_command(train_main, arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Ended(code=code, out=out.getvalue(), error=error.getvalue())


@contextlib.contextmanager
def letters() -> Iterator[None]:
    """The environment under its name in the registry."""
    with mock.patch.dict(ENVIRONMENTS, {"letters": LETTERS}):
        yield


def write_config(method: str, folder: Path) -> list[str]:
    """A small config of a method; the command line that trains it into folder/runs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{method}.yaml"
    path.write_text(TEXT.format(name=method))
    named = () if method == "sft" else (f"recipe={method}",)
    return [str(path), f"runs_dir={folder / 'runs'}", *named, *OPTIONS.get(method, ())]


def faulty(options: FaultyOptions) -> list[str]:
    """Overrides of a run whose environment breaks."""
    limit = ["env.step_timeout=1.0"] if HANG in options.kinds else []
    apart = ["env.processes=true"] if KILLED in options.kinds else []
    return [f"env.options={options.model_dump_json()}", "env.max_fault_share=1", *limit, *apart]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A run that nobody disturbed, and its folder as it was after each commit."""

    method: str
    arguments: tuple[str, ...]
    folder: Path
    snapshots: tuple[Path, ...]


def make_whole(method: str, folder: Path) -> Whole:
    """Train a method undisturbed, and copy its folder after every commit.

    Raises:
      ConfigError: it did not end well, or took no commit.
    """
    arguments = write_config(method, folder)
    place = folder / "runs" / method
    snapshots: list[Path] = []
    write = run_module.write_manifest

    def write_and_copy(run_dir: Path, manifest: run_module.Manifest) -> None:
        write(run_dir, manifest)
        copy = folder / "snapshots" / f"{len(snapshots):03d}" / method
        copy_folder(run_dir, copy)
        snapshots.append(copy)

    with mock.patch.object(run_module, "write_manifest", write_and_copy):
        ended = train(*arguments)
    if ended.code or not snapshots:
        raise ConfigError(f"{method}: the undisturbed run ended with {ended.code}: {ended.error[-2000:]}")
    return Whole(method=method, arguments=tuple(arguments), folder=place, snapshots=tuple(snapshots))


def copy_folder(source: Path, place: Path) -> Path:
    """A copy; what vanishes under way, such as a checkpoint half written, is left out."""
    with contextlib.suppress(shutil.Error):
        shutil.copytree(source, place, copy_function=_copy)
    return place


def _copy(source: str, place: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, place)
    return place


def differences(whole: Path, other: Path, leave: Sequence[str] = ()) -> list[str]:
    """What differs of two finished runs, kind by kind; nothing where every bit that counts is the same.

    `leave` names parts that need not agree, such as a checkpoint that was damaged and never read.
    """
    found = [f"{kind}: {where}" for kind, _, where in compare(whole, other, {}) if where is not None]
    return [one for one in found if not any(name in one for name in leave)]
