"""What a study runs: every config with every seed, checked, and held against each other before it starts."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError
from coevo_jax.phases.world import check_world
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.folder import CONFIG_FILE, first_difference
from coevo_jax.run_folder.fork import beginning
from coevo_jax.run_folder.manifest import read_manifest

TOTALS = ("pairs", "explored_tokens", "learned_tokens")  # of a budget


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study: a config with a seed."""

    study: str
    method: str
    seed: int
    source: str  # the file that the config was read from
    config: Config  # with the seed; a budget still names the run that it is taken from
    digest: str  # of the config as all seeds have it
    base: str | None  # digest of the checkpoint that the run begins with; None where it begins from scratch
    after: Path | None  # the run that its budget is taken from

    @property
    def folder(self) -> Path:
        return Path(self.config.runs_dir) / self.config.name

    @property
    def key(self) -> tuple[str, int]:
        return self.method, self.seed


def plan_study(configs: Mapping[str, Config], seeds: Sequence[int], runs_dir: Path) -> list[Cell]:
    """Every run of a study, seed by seed, those first that others take their budget from.

    A config NAME.yaml gives the runs NAME-SEED in `runs_dir`; `budget.run` of a config names another config's
    run, whose seed is put behind it. What must be equal is compared: everything that the warm start and its
    evaluation depend on, the tasks that are explored, and the rounds.

    Args:
      configs: by the file or name that each was read from.

    Raises:
      ConfigError: a config that cannot be run, two that differ in what must be equal, or a folder that holds
        a run of another config.
    """
    if not configs:
        raise ConfigError("found no config, expected the configs of a study")
    study = study_name(configs)
    bases = {source: base_digest(config) for source, config in configs.items()}
    _check_alike(configs, bases)
    cells = [
        _cell(study, source, config, seed, runs_dir, bases[source])
        for seed in seeds
        for source, config in configs.items()
    ]
    needed = {cell.after for cell in cells if cell.after is not None}
    cells.sort(key=lambda cell: (seeds.index(cell.seed), cell.folder not in needed))
    planned = {cell.folder for cell in cells}
    for cell in cells:
        _check_folder(cell)
        if cell.after is not None and cell.after not in planned and not is_finished(cell.after):
            raise ConfigError(
                f"{cell.source}: budget.run: {cell.after} is no finished run, and no config of this study "
                "makes it; expected its config among them"
            )
    for source, config in configs.items():
        try:
            check_world(config)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
    return cells


def study_name(configs: Mapping[str, Config]) -> str:
    """The name of the study that the configs are of: each is called STUDY-METHOD.

    Raises:
      ConfigError: they are of several studies, one is called otherwise, or two have one method.
    """
    names: dict[str, str] = {}
    methods: dict[str, str] = {}
    for source, config in configs.items():
        study, dash, _ = config.name.removesuffix(config.method).rpartition("-")
        if not config.name.endswith(f"-{config.method}") or not dash or not study:
            raise ConfigError(
                f"{source}: name: found {config.name!r}, expected STUDY-METHOD, where method is "
                f"{config.method!r}"
            )
        if config.method in methods:
            raise ConfigError(
                f"{source}: method: found {config.method!r}, which {methods[config.method]} has"
            )
        methods[config.method] = source
        names.setdefault(study, source)
    if len(names) > 1:
        first, second = list(names.items())[:2]
        raise ConfigError(
            f"{second[1]}: name: found a config of the study {second[0]!r}, expected {first[0]!r} as in "
            f"{first[1]}"
        )
    return next(iter(names))


def base_digest(config: Config) -> str | None:
    """The sha256 of the weights that a config begins with, file by file; None where it has none.

    Raises:
      ConfigError: the folder has no safetensors.
    """
    if config.model.path is None:
        return None
    folder = Path(config.model.path)
    digest = weights_digest(folder)
    if digest is None:
        raise ConfigError(f"model.path: {folder} holds no safetensors, expected a checkpoint")
    return digest


def weights_digest(folder: Path) -> str | None:
    """The sha256 of a folder's safetensors, file by file; None where it has none."""
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest() if files else None


def config_digest(config: Config) -> str:
    """The sha256 of a config but for its name, seed and folder: the same for all seeds of a method.

    What has its default is left out, so that an option which a later version adds changes no digest.
    """
    budget = config.budget
    if budget.run is not None:
        budget = budget.model_copy(update={"run": Path(budget.run).name})
    bare = config.model_copy(update={"name": "", "seed": 0, "runs_dir": "", "budget": budget})
    said = bare.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a run all of whose phases are committed."""
    try:
        manifest = read_manifest(folder)
        config = load_resolved(folder / CONFIG_FILE)
    except ConfigError:
        return False
    return all(manifest.record(phase.name) for phase in schedule(config))


def _cell(study: str, source: str, config: Config, seed: int, runs_dir: Path, base: str | None) -> Cell:
    own: dict[str, Any] = {"name": f"{config.name}-{seed}", "seed": seed, "runs_dir": str(runs_dir)}
    after = None
    if config.budget.run is not None and config.rounds:
        after = runs_dir / f"{Path(config.budget.run).name}-{seed}"
        own["budget"] = config.budget.model_copy(update={"run": str(after)})
    return Cell(
        study=study,
        method=config.method,
        seed=seed,
        source=source,
        config=config.model_copy(update=own),
        digest=config_digest(config),
        base=base,
        after=after,
    )


def _check_alike(configs: Mapping[str, Config], bases: Mapping[str, str | None]) -> None:
    """Raise ConfigError where two configs differ in what a study's runs have in common."""
    first: dict[str, tuple[str, dict[str, Any]]] = {}  # part -> the file that has it first, and what it has
    for source, config in configs.items():
        for part, values in _common(config, bases[source]):
            earlier, theirs = first.setdefault(part, (source, values))
            difference = first_difference(values, theirs)
            if difference is not None:
                key, ours, other = difference
                raise ConfigError(
                    f"{source}: {key}: found {ours!r}, expected {other!r} as in {earlier}: runs of a study "
                    "have one base, one warm start, one evaluation and the same tasks and rounds"
                )


def _common(config: Config, base: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    begin = beginning(config)
    explored = begin.pop("explore")
    begin["model"] = begin["model"] | {"path": None}  # two folders may hold the same base
    yield "begin", begin | {"model.path (sha256 of its weights)": base}
    if config.rounds:
        yield "rounds", {"explore": explored, "rounds": config.rounds}


def _check_folder(cell: Cell) -> None:
    if not cell.folder.exists():
        return
    read_manifest(cell.folder)
    found = load_resolved(cell.folder / CONFIG_FILE)
    matched = cell.after is not None
    difference = first_difference(_comparable(cell.config, matched), _comparable(found, matched))
    if difference is not None:
        key, own, other = difference
        raise ConfigError(
            f"{cell.folder}: holds a run of another config ({key}: found {other!r}, {cell.source} has "
            f"{own!r}); move it away or choose another --runs-dir FOLDER"
        )


def _comparable(config: Config, matched: bool) -> dict[str, Any]:
    """A config's options; of a budget that is another run's, which totals it has and not their size."""
    options = config.model_dump()
    if matched:
        budget = config.budget
        options["budget"] = {name: name in budget.match or bool(getattr(budget, name)) for name in TOTALS}
    return options
