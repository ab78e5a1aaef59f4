"""Real servers and games of hubs: `openenv init`'s skeleton, published environments, TextArena.

python -m tests.real.hubs openenv FOLDER       what is installed, made and served lies in FOLDER
python -m tests.real.hubs textarena FOLDER

COEVO_OPENENV_ENVS names the `envs` folder of a checkout of OpenEnv's repository, whose environments are on no
package index: grid_world_env and textarena_env are then served as they are, too. The last one ignores its
seed, which the checks must find.
"""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coevo_jax.envs.conformance import CheckResult, run_checks
from coevo_jax.envs.registry import make_env

OPENENV, TEXTARENA = "openenv==0.10.0", "textarena==0.7.4"
FIRST_PORT = 18841
SEED_IGNORED = ("same_actions",)  # the checks that find it
START_SECONDS = 180.0  # a server's imports take long on a busy machine


@contextmanager
def served(python: Path, app: str, folder: Path, port: int, **environment: str) -> Iterator[str]:
    """A server of an application, ended afterwards; gives its url."""
    command = [str(python), "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{app} did not start") from None
                time.sleep(0.2)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def checked(what: str, name: str, options: dict, expected: Sequence[str] = ()) -> str:
    """Every check of an environment: all hold, or those fail that are expected to, whatever else does."""
    results = run_checks(make_env(name, options), tasks_per_split=1, call_timeout=60)
    failed = [one for one in results if one.status == "failed"]
    for one in failed:
        print(f"  {one.name}: {one.message}")
    print(f"{what}: {_counts(results)}", flush=True)
    names = {one.name for one in failed}
    if not set(expected) <= names or (names and not expected):
        raise SystemExit(f"{what}: failed {sorted(names)}, expected {list(expected) or 'none'}")
    return what


def _counts(results: Sequence[CheckResult]) -> str:
    counts = {state: sum(one.status == state for one in results) for state in ("passed", "failed", "skipped")}
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def openenv(folder: Path) -> None:
    """The skeleton at its one session and at sixteen, and the published environments where they are."""
    python = _installed(folder, OPENENV, TEXTARENA)
    subprocess.run([str(python.with_name("openenv")), "init", "echo_env"], cwd=folder, check=True)
    echo, examples = folder / "echo_env", {"examples": ["a", "hello"]}
    with served(python, "server.app:app", echo, FIRST_PORT) as url:
        checked("skeleton, one session", "openenv", {"url": url} | examples)
    app = echo / "server" / "app.py"
    more = re.sub(r"max_concurrent_envs=1\b", "max_concurrent_envs=16", app.read_text())
    app.write_text(more)
    with served(python, "server.app:app", echo, FIRST_PORT + 1) as url:
        checked("skeleton, 16 sessions", "openenv", {"url": url} | examples)
    published = os.environ.get("COEVO_OPENENV_ENVS")
    if not published:
        print("published environments: COEVO_OPENENV_ENVS names none")
        return
    envs = Path(published)
    with served(python, "grid_world_env.server.app:app", envs, FIRST_PORT + 2) as url:
        options = {"url": url, "reward": "sum", "reward_range": [-1.6, 0.3]}
        checked("grid_world_env", "openenv", options)
    game = {"TEXTARENA_ENV_ID": "Mastermind-v0", "TEXTARENA_DOWNLOAD_NLTK": "0"}
    with served(python, "textarena_env.server.app:app", envs, FIRST_PORT + 3, **game) as url:
        codes = [f"[{a} {b} {c} {d}]" for a, b, c, d in ((1, 2, 3, 4), (2, 4, 6, 1), (5, 3, 1, 6))]
        options = {"url": url, "observation": "{prompt}{messages}", "examples": codes}
        what = "textarena_env, Mastermind, which must fail since it ignores its seed"
        checked(what, "openenv", options, SEED_IGNORED)


def textarena(folder: Path) -> None:
    """The tests of TextArena's games, with the package."""
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder / "lib"), TEXTARENA]
    subprocess.run(install, check=True)
    paths = os.pathsep.join([*sys.path[1:], str(folder / "lib")])
    test = [sys.executable, "-m", "pytest", "-n", "0", "tests/envs/test_textarena.py"]
    done = subprocess.run(test, env={**os.environ, "PYTHONPATH": paths}, check=False)
    raise SystemExit(done.returncode)


def _installed(folder: Path, *packages: str) -> Path:
    """The Python of an environment of its own with some packages."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return python


if __name__ == "__main__":
    {"openenv": openenv, "textarena": textarena}[sys.argv[1]](Path(sys.argv[2]))
