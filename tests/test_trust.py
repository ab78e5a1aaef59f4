"""What is read is data: nothing that the code reads can make it call anything, or reach another file."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.models.huggingface.shards import read_headers

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for part in ("coevo_jax", "launch") for path in (ROOT / part).rglob("*.py"))
# Where pickles are made or read: bytes between a run's own processes, which `envs.wire` reads as data alone,
# and a child that reads what its own parent sent it or it made itself.
PICKLING = {
    "coevo_jax/envs/wire.py": {"dumps", "Unpickler"},
    "coevo_jax/envs/process.py": {"dumps"},
    "coevo_jax/envs/process_worker.py": {"dumps", "loads"},
    "coevo_jax/envs/conformance/episodes.py": {"dumps", "loads"},
}
NEVER = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path):
    """Every call of a file, as its dotted name and its node."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_pickles_are_read_where_they_were_made_by_the_same_hand_alone():
    for path in FILES:
        used = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not NEVER & {module.partition(".")[0] for module in modules}, named(path)
                assert not (isinstance(node, ast.ImportFrom) and node.module == "pickle"), named(path)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                used.add(node.attr)
        assert used == PICKLING.get(named(path), set()), named(path)


def test_nothing_that_was_read_is_run():
    """No eval or exec, arrays without objects, YAML as plain data, models' own code left alone."""
    for path in FILES:
        for name, call in calls(path):
            options = {one.arg: ast.unparse(one.value) for one in call.keywords}
            where = f"{named(path)}:{call.lineno}"
            assert name not in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "torch.load"), where
            assert options.get("allow_pickle", "False") == "False", where
            assert options.get("trust_remote_code", "False") == "False", where
            assert options.get("shell", "False") == "False", where
            assert not name.endswith((".extractall", "os.system", "os.popen")), where
            if name in ("YAML", "ruamel.yaml.YAML"):
                assert options.get("typ") == "'safe'", where


def test_no_task_or_trajectory_names_a_file():
    """Ids are an environment's words: none stands where a path is made, but for games that were made here."""
    ids = {"task_id", "task.id", "one.task_id", "trajectory.task_id", "demonstration.task_id"}
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                parts = ast.unparse(node.right)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("Path", "epath.Path", "open"):
                parts = " ".join(map(ast.unparse, node.args))
            else:
                continue
            if ids & set(re.split(r"[^\w.]+", parts)):
                assert named(path).startswith("coevo_jax/envs/textworld/g"), f"{named(path)}:{node.lineno}"


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", ".."])
def test_an_index_names_files_of_its_own_folder_alone(name, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ConfigError, match=r"index\.json: .* expected one of this folder"):
        read_headers(tmp_path)
