"""The plan of the house, kept by reading the source: imports run downward only, and the bottom is pure."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400

# Rooms from the bottom up. A room is a folder, or a module at the top; none imports one beside or above it.
LAYERS = (
    {"batch", "files", "progress", "trajectory"},
    {"methods"},
    {"config"},
    {"envs", "hosts", "recipe", "sharding"},
    {"data", "episode_stats", "models"},
    {"learning", "sampling"},
    {"machine", "openai_server", "rollout", "run_folder"},
    {"report", "training"},
    {"phases"},
    {"audit", "coevolution", "preflight", "stored"},
    {"study", "sweep"},
    {"commands"},
    {"launch"},
)
MOST_AT_THE_TOP = 9
DEVICE_PACKAGES = {"jax", "jaxlib", "flax", "optax", "orbax", "tensorstore"}
IMPURE_MODULES = {"logging", "time", "datetime", "random", "tempfile", "shutil", "subprocess", "socket"}
DISTRIBUTIONS = {
    "orbax": "orbax-checkpoint",
    "ruamel": "ruamel.yaml",
    "Stemmer": "PyStemmer",
}  # packages named otherwise than their import


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for folder in ("coevo_jax", "launch")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
CODE = [name for name in SOURCES if name != "coevo_jax"]


def imports_of(module: str) -> set[str]:
    """Every module named by an import statement, wherever it stands in the file."""
    path = SOURCES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            named = {f"{origin}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else origin for name in named}
    return found


def place(module: str) -> tuple[str, int]:
    """The room that holds the module, and its layer."""
    room = module.removeprefix("coevo_jax.").split(".")[0]
    for layer, names in enumerate(LAYERS):
        if room in names:
            return room, layer
    raise AssertionError(f"{module} has no place in LAYERS: decide where it belongs")


def inside(*packages: str) -> list[str]:
    return [module for module in CODE if module.removeprefix("coevo_jax.").split(".")[0] in packages]


def own(module: str) -> bool:
    return module.split(".")[0] in ("coevo_jax", "launch")


@pytest.mark.parametrize("module", CODE)
def test_imports_run_downward(module):
    unit, layer = place(module)
    for target in filter(own, imports_of(module)):
        if target == "coevo_jax":
            continue
        target_unit, target_layer = place(target)
        below = target_unit == unit or target_layer < layer
        assert below, f"{module} imports {target}, which lies beside or above it"


def test_few_modules_stand_at_the_top():
    top = sorted(path.stem for path in (ROOT / "coevo_jax").glob("*.py") if path.stem != "__init__")
    assert len(top) <= MOST_AT_THE_TOP, f"found {top}"


@pytest.mark.parametrize("module", CODE)
def test_every_package_imported_is_a_pinned_requirement(module):
    pinned = pinned_by("requirements.txt")
    for target in imports_of(module):
        package = target.split(".")[0]
        distribution = DISTRIBUTIONS.get(package, package).lower().replace("-", "_")
        known = own(target) or package in sys.stdlib_module_names or distribution in pinned
        assert known, f"{module} imports {package}, which requirements.txt does not pin"


def pinned_by(name: str) -> set[str]:
    """The distributions that a requirements file pins."""
    lines = (ROOT / name).read_text().lower().splitlines()
    return {line.split("==")[0].partition("[")[0].replace("-", "_") for line in lines if "==" in line}


def test_the_newest_versions_are_pinned_of_all_that_is_required():
    assert pinned_by("requirements.txt") <= pinned_by("requirements-latest.txt")


def test_no_import_cycles():
    graph = {module: {m for m in imports_of(module) if m in SOURCES} for module in SOURCES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path, module))}"
        if module not in done:
            for target in graph[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", inside("envs"))
def test_environments_stay_on_the_host(module):
    for target in imports_of(module):
        assert target.split(".")[0] not in DEVICE_PACKAGES, f"{module} imports {target}"
        assert target != "coevo_jax.batch", f"{module} imports {target}, which imports jax"
        if own(target) and target != "coevo_jax":
            unit, _ = place(target)
            host = {"config", "files", "progress", "trajectory"}
            assert unit in host | {"envs"}, f"{module} imports {target}"


def test_importing_every_environment_does_not_load_jax():
    code = (
        f"import importlib, sys\nfor name in {inside('envs')!r}: importlib.import_module(name)\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


WITNESSED = {
    *("coevolution", "data", "episode_stats", "learning", "openai_server", "phases", "progress", "report"),
    *("recipe", "rollout", "run_folder", "sampling", "stored", "sweep", "training"),
}


def test_the_audit_shares_no_code_with_what_it_witnesses():
    """It reads file formats, the config's schema, the models' plain forward pass and the task lists.

    `files` tells it how the user calls a command.
    """
    allowed = {"config", "envs", "files", "models"}
    reached = set()
    for module in inside("audit"):
        for target in filter(own, imports_of(module)):
            unit = target.removeprefix("coevo_jax.").split(".")[0]
            assert unit in allowed or unit == "audit", f"{module} imports {target}"
            reached |= {target} if unit != "audit" else set()
    waiting = [target for target in reached if target in SOURCES]
    while waiting:
        found = imports_of(waiting.pop()) & SOURCES.keys() - reached
        reached |= found
        waiting += found
    parts = {target.removeprefix("coevo_jax.").split(".")[0] for target in reached}
    assert not parts & WITNESSED


@pytest.mark.parametrize("module", inside("models", "learning"))
def test_the_bottom_is_pure(module):
    """No file, clock, log or global random state in models/ and learning/."""
    for target in imports_of(module):
        assert target.split(".")[0] not in IMPURE_MODULES, f"{module} imports {target}"
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Global):
            raise AssertionError(f"{module}:{node.lineno} has a global statement")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        where = f"{module}:{node.lineno} calls {called}"
        assert called != "print", where
        assert called != "open", where
        is_numpy_random = called.startswith(("np.random.", "numpy.random."))
        assert not is_numpy_random or called.endswith(".default_rng"), where


@pytest.mark.parametrize("module", SOURCES)
def test_files_stay_short_and_well_named(module):
    path = SOURCES[module]
    assert len(path.read_text().splitlines()) <= MAX_LINES, f"{path} has more than {MAX_LINES} lines"
    assert path.stem not in ("utils", "util", "helpers", "common", "misc"), (
        f"{path}: name it after what it does"
    )
