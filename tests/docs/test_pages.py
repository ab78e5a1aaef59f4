"""What the README and docs/ say of the tree is so: sizes, links, tables, layout, recipes and messages."""

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from benchmarks.methods import write_table
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.loss_table import loss_markdown
from coevo_jax.methods.table import BUILDERS, builder_options
from coevo_jax.report.markdown import has_table
from coevo_jax.study.page import PARTS
from tests.docs.pages import PAGES, ROOT, blocks, examples, prose

MOST_BYTES = 9_000  # of the README
TEXT = {name: path.read_text() for name, path in PAGES.items()}
WRITTEN_BY = {  # pages and the tables that commands write into them
    "docs/backbones.md": ["backbone"],
    "docs/environments.md": ["environments", "intercode-sql-differences"],
    "docs/losses.md": ["losses"],
    "docs/preflight.md": ["preflight", "preflight-rates"],
    "docs/results.md": ["learning", "quickstart", "scienceworld"],
    "docs/rollouts.md": ["environments", "generation", "generation-gpu"],
    "docs/serving.md": ["serving"],
    "docs/study.md": [f"{study}-{part}" for study in ("sql", "webshop") for part in PARTS],
}


def anchors(text: str) -> set[str]:
    """The names of a page's headings as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tracked() -> list[Path]:
    """Every text file of the project that names pages."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    kinds = (".py", ".sh", ".yaml", ".sbatch", ".toml", ".txt")
    return [
        ROOT / name for name in listed.stdout.splitlines() if name.endswith(kinds) and (ROOT / name).is_file()
    ]


def test_the_readme_is_short():
    assert len(TEXT["README.md"].encode()) < MOST_BYTES


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXT[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert place.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(place.read_text()), f"{page}: {target}"


def test_every_page_is_linked_from_the_readme():
    found = set(re.findall(r"\]\((docs/\w+\.md)[)#]", TEXT["README.md"]))
    assert found == set(PAGES) - {"README.md"}


def test_pages_that_other_files_name_exist():
    for path in tracked():
        for name in re.findall(r"\bdocs/\w+\.(?:md|svg|json)\b", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"


@pytest.mark.parametrize("page", WRITTEN_BY)
def test_the_tables_that_commands_write_have_their_place(page):
    found = re.findall(r"^<!-- table:(\S+) -->$", TEXT[page], re.MULTILINE)
    assert sorted(found) == sorted(WRITTEN_BY[page])
    assert all(has_table(name, PAGES[page]) for name in found)


def test_the_table_of_losses_is_current():
    found = TEXT["docs/losses.md"].partition("<!-- table:losses -->\n")[2].partition("\n<!-- /table -->")[0]
    assert found == loss_markdown(), "run python -m benchmarks.losses"


def test_the_picture_is_whole_and_stands_on_its_own_ground():
    """Its first shape is a background of its own, so that it looks the same on a light and on a dark page."""
    root = ElementTree.parse(ROOT / "docs/loop.svg").getroot()
    shape = next(one for one in root if one.tag.endswith("rect"))
    assert shape.get("fill") == "#ffffff"
    assert float(shape.get("width", 0)) >= float(root.get("width", "0")) - 1
    assert "(docs/loop.svg)" in TEXT["README.md"]


def test_every_config_is_in_a_table():
    named = TEXT["README.md"] + TEXT["docs/runs.md"]
    rows = "\n".join(re.findall(r"^\| \[`.*$", TEXT["docs/methods.md"], re.MULTILINE))
    for path in (ROOT / "configs").glob("*.yaml"):
        short = re.sub(r"^(?:quickstart-eto|intercode-sql)", "", path.stem)
        method = f"`{path.stem.removeprefix('quickstart-')}`"  # README's quickstart-METHOD.yaml
        assert f"`{path.name}`" in named or f"`{short}`" in named or method in rows, path.name


def test_the_recipes_are_those_of_the_table():
    section = TEXT["docs/method.md"].partition("## The recipes that are shipped")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| `(?:paper/\*|([\w/-]+))\.yaml` \|$", section, re.MULTILINE)
    assert {name for name, _ in rows} == {path.stem for path in (ROOT / "configs/recipes").glob("*.yaml")}
    for name, config in rows:
        phases = yaml.safe_load((ROOT / f"configs/recipes/{name}.yaml").read_text())
        path = ROOT / "configs" / (f"{config}.yaml" if config else "paper/qwen3-4b-webshop.yaml")
        recipe = load_config(path).recipe
        assert [phase.name for phase in recipe] == [_name(phase) for phase in phases]


def _name(phase: dict) -> str:
    [(kind, options)] = phase.items()
    return f"{kind}_{options.get('into') or options.get('name') or options['agent']}"


def test_co_evolution_is_printed_as_it_is_shipped():
    printed = blocks(TEXT["docs/method.md"], "yaml")[0]
    shipped = (ROOT / "configs/recipes/coevo.yaml").read_text()
    assert yaml.safe_load(printed) == yaml.safe_load(shipped)


def test_the_builders_and_their_options_are_those_of_the_table():
    kinds = "pairs|imitation|reinforcement|points|questions"
    pattern = re.compile(rf"^\| `(\w+)` \| (?:{kinds}): (.*) \|$", re.MULTILINE)
    rows = dict(pattern.findall(TEXT["docs/method.md"]))
    functions = {name: function for table in BUILDERS.values() for name, function in table.items()}
    assert set(rows) == set(functions)
    for name, function in functions.items():
        named = set(re.findall(r"`(\w+)` \(", rows[name]))
        assert named == set(builder_options(function)), name


def test_the_layout_names_every_room():
    [layout] = blocks(TEXT["docs/architecture.md"], "text")
    named = set(re.findall(r"[\w]+(?=/|\.py)", layout.partition("launch/  ")[0]))
    here = {path.stem for path in (ROOT / "coevo_jax").iterdir() if not path.name.startswith("__")}
    assert {"coevo_jax", *here} - named == {"files", "progress"} & here
    assert named - here <= {"coevo_jax", "chat", "packing", "interchange", "launch"}


def test_the_modules_and_functions_of_the_way_of_a_pair_exist():
    way = TEXT["docs/architecture.md"].partition("\n## Layout")[0]
    files = {str(path.relative_to(ROOT / "coevo_jax")) for path in (ROOT / "coevo_jax").rglob("*.py")}
    source = "\n".join((ROOT / "coevo_jax" / name).read_text() for name in files)
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", way):
        assert any(f"/{file}".endswith(f"/{name}") for file in files), name
    for name in ("Lane", "Trajectory", "PreferencePair", "PreferenceBatch"):
        assert f"`{name}`" in way and re.search(rf"^class {name}\b", source, re.MULTILINE)
    functions = ("parse_response", "take_step", "train_step", "view_logps", "scored_logps", "objective")
    for name in (*functions, "gradients", "pair_losses", "call_loss", "loss_of"):
        assert f"`{name}`" in way and re.search(rf"^ *def {name}\(", source, re.MULTILINE)


def test_the_messages_of_a_wrong_config_are_as_printed(tmp_path, monkeypatch):
    printed = next(block for block in blocks(TEXT["docs/runs.md"], "text") if "did you mean" in block)
    (tmp_path / "configs").mkdir()
    wrong = "recipe: eto\nbatch: {row_lenght: 1}\nagents: {target: {beta: 0.1}}\n"
    (tmp_path / "configs/my.yaml").write_text(wrong)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as found:
        load_config("configs/my.yaml", ["rounds=x"])
    assert sorted(str(found.value).splitlines()) == sorted(printed.splitlines())


@pytest.mark.parametrize(
    "page, most", [("docs/losses.md", 30), ("docs/method.md", 45), ("docs/environments.md", 75)]
)
def test_what_one_brings_is_short(page, most):
    found = examples(page)
    assert found and sum(len(text.splitlines()) for text in found.values()) <= most


@pytest.mark.parametrize(
    "name, found", [("environments", "environments.md, rollouts.md"), ("nothing", "none")]
)
def test_a_table_is_written_into_the_one_page_that_has_it(name, found):
    with pytest.raises(ConfigError, match=f"--table {name}: found {re.escape(found)}, expected one page"):
        write_table(name, "")
