"""Broken configs by the hundred: each is a Config or one ConfigError that says where, and leaves no file."""

import copy
import shutil
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = {path.stem: path.read_text() for path in sorted((CONFIGS / "recipes").glob("*.yaml"))}
FILES = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "recipes"]
TEXTS = {str(path.relative_to(CONFIGS)): path.read_text() for path in FILES} | {
    f"{name} written out": f"name: own\nrecipe:\n{indent(text, '  ')}" for name, text in RECIPES.items()
}
LOOPED: list[Any] = []
LOOPED.append(LOOPED)

VALUES = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**30, 10**400, 1e308, 5e-324, -0.0),
            *(
                float("nan"),
                float("inf"),
                -float("inf"),
                "",
                "x" * 300,
                "ä" * 200,
                "a/b",
                "..",
                "\x00",
                "\x1b[2J",
            ),
            *("1e-4", "no", "2026-01-31", "=", "<<", "~", "0:5", "5:0", ":" * 9, "a:b", "gs://", "hub:x/y"),
            *("\ud800", [], {}, [[]], [None], [1, "a"], {"a": 1}, [{}], [[["target"]]], {"": {}}, LOOPED),
            *({"explore": {}}, [{"explore": {"agent": "a"}}, 3], [{"learn": {"agent": "a", "sources": [3]}}]),
            *(
                "coevo",
                "sft",
                "coevoo",
                "quickstart.yaml",
                "tests.config:nothing",
                "os:system",
                "no.such:thing",
            ),
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.recursive(
        st.integers() | st.text(max_size=3), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    ),
)
LINES = st.sampled_from(
    [
        *(
            "a: &a [*a]",
            "<<: *b",
            "<<: 3",
            "x: &x {<<: *x}",
            "? [1]",
            "- 1",
            "\t",
            "---",
            "...",
            "%YAML 1.1",
            "!!x y",
        ),
        *(
            "seed: 123456789012345678901234567890",
            "seed: " + "9" * 5000,
            f"name: {'x' * 300}",
            "seed: 0x_",
            "[" * 500,
        ),
        *(
            "a: " + "{a: " * 200,
            "name: \x07",
            "name: \ufeff",
            "extends: " + "x" * 300,
            'extends: "\\0"',
            "1: 2",
        ),
        *(
            "extends: [[]]",
            "extends: mutated.yaml",
            "extends: quickstart.yaml",
            "recipe: &r [{explore: *r}]",
            "'",
        ),
        *(
            "recipe: [{learn: {agent: a, sources: [{pairs: x, of: [[a]]}]}}]",
            'model: {path: "\\0"}',
            "agents: []",
        ),
        *(
            f"model: {{path: {'x' * 300}}}",
            "model: {path: .}",
            "target: {beta: [1]}",
            "format: 1",
            "agents: {a: 3}",
        ),
    ]
)
PLACES = st.integers(0, 10_000)


def spots(data: Any, seen: tuple[int, ...] = ()) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of nested data."""
    if not isinstance(data, dict | list) or id(data) in seen:
        return []
    own = [(data, key) for key in (data if isinstance(data, dict) else range(len(data)))]
    return [*own, *(spot for _, key in own for spot in spots(data[key], (*seen, id(data))))]


@st.composite
def mutated_data(draw: st.DrawFn, text: str) -> str:
    """The text's data with some of it dropped, renamed, replaced, swapped or put inside itself."""
    data = yaml.safe_load(text)
    for _ in range(draw(st.integers(1, 3))):
        found = spots(data)
        if not found:
            break
        (where, key), (other, there) = (found[draw(PLACES) % len(found)] for _ in range(2))
        match draw(st.sampled_from(["drop", "rename", "replace", "swap", "nest", "add"])):
            case "drop":
                where.pop(key)
            case "rename" if isinstance(where, dict):
                where[draw(st.sampled_from([f"{key}s", "x" * 300, "", 3, None, "name"]))] = where.pop(key)
            case "swap":
                where[key], other[there] = copy.copy(other[there]), copy.copy(where[key])
            case "nest":
                where[key] = where if draw(st.booleans()) else {key: where[key]}
            case "add" if isinstance(where, dict):
                where[draw(st.sampled_from(sorted(Config.model_fields)))] = draw(VALUES)
            case _:
                where[key] = draw(VALUES)
    return yaml.safe_dump(data, allow_unicode=draw(st.booleans()))


@st.composite
def mutated_text(draw: st.DrawFn, text: str) -> str:
    """The text with lines dropped, doubled, moved, indented, cut short, or with strange ones among them."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(PLACES) % (len(lines) + 1)
        line = lines[at] if at < len(lines) else ""
        match draw(st.sampled_from(["drop", "double", "move", "indent", "cut", "insert", "character"])):
            case "drop":
                lines[at : at + 1] = []
            case "double":
                lines.insert(at, line)
            case "move":
                lines[at : at + 1] = []
                lines.insert(draw(PLACES) % (len(lines) + 1), line)
            case "indent":
                lines[at : at + 1] = ["  " + line]
            case "cut":
                lines[at : at + 1] = [line[: draw(PLACES) % (len(line) + 1)]]
            case "insert":
                lines.insert(at, draw(LINES))
            case _:
                cut = draw(PLACES) % (len(line) + 1)
                lines[at : at + 1] = [line[:cut] + draw(st.characters()) + line[cut + 1 :]]
    return "\n".join(lines)


KEYS = [
    *("name", "seed", "rounds", "recipe", "recipe.learn_target", "recipe.learn_target.expert_target.dpo"),
    *(
        "recipe.learn_target.expert_target.of",
        "recipe.learn_target.expert_target.own.x",
        "recipe.explore_target.into",
    ),
    *(
        "agents",
        "agents.target",
        "agents.target.beta",
        "agents.target.loss",
        "agents.nobody.beta",
        "model",
        "model.lora",
    ),
    *(
        "model.path",
        "model.lora.rank",
        "env.options",
        "env.options.a.b",
        "explore.tasks",
        "rollout.server",
        "budget.run",
    ),
    *(
        "rollout.server.urls.target",
        "checkpoint.folder",
        "runs_dir",
        "warm_start.data",
        "extends",
        "target.beta",
        "",
    ),
    *(
        "batch..rows",
        ".",
        "evaluate.tasks",
        "format",
        "mesh.tensor",
        "agents.target.loss_options.ipo.average",
        "a" * 300,
    ),
]


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    texts = []
    for _ in range(draw(st.integers(0, 2))):
        value = draw(st.one_of(VALUES.map(lambda one: yaml.safe_dump(one, default_flow_style=True)), LINES))
        equals = draw(st.sampled_from(["=", "=", "=", "", "=="]))
        texts.append(draw(st.sampled_from(KEYS)) + equals + value)
    return texts


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    name = draw(st.sampled_from(sorted(TEXTS)))
    how = draw(st.sampled_from([mutated_data, mutated_text, lambda text: st.just(text)]))
    return name, draw(how(TEXTS[name])), draw(overrides())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The shipped configs, so that what a mutated one extends is there, in a folder that is watched."""
    place = tmp_path_factory.mktemp("mutations")
    shutil.copytree(CONFIGS, place, dirs_exist_ok=True)
    return place


def one_outcome(folder: Path, mutation: tuple[str, str, list[str]]) -> None:
    name, text, texts = mutation
    path = (folder / name).parent / "mutated.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    before = sorted(folder.rglob("*"))
    try:
        assert isinstance(load_config(path, texts), Config)
    except ConfigError as error:
        lines = str(error).splitlines()
        sources = [str(folder), *(f"override '{one}'".splitlines()[0] for one in texts), str(CONFIGS)]
        assert lines and any(source in lines[0] for source in sources), str(error)
        assert len(str(error)) < 20_000
    finally:
        assert sorted(folder.rglob("*")) == before
        path.unlink()


OPTIONS: Any = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=60, **OPTIONS)
@given(mutation=mutations())
def test_a_mutated_config_is_one_config_or_one_message(folder, mutation):
    one_outcome(folder, mutation)


@pytest.mark.slow
@settings(max_examples=1000, **OPTIONS)
@given(mutation=mutations())
def test_a_thousand_mutated_configs_are(folder, mutation):
    one_outcome(folder, mutation)
