"""Checkpoints on an emulator of Google Cloud Storage: a run is killed, goes on, and its objects are damaged.

python -m tests.real.bucket FOLDER          what is installed and made lies in FOLDER

What is installed are gcsfs, as requirements-bucket.txt has it, and gcp-storage-emulator: Google's API over
HTTP, its objects in memory. The run itself is a process that is given both.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from etils import epath

from coevo_jax.audit.reading import open_files
from coevo_jax.audit.whose import file_problems
from coevo_jax.coevolution import coevolve
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.registry import ENVIRONMENTS
from coevo_jax.run_folder.digests import CRC32C
from coevo_jax.run_folder.fork import fork_run
from coevo_jax.run_folder.manifest import Manifest, checkpoint_root, file_sizes, read_manifest
from coevo_jax.run_folder.run import create_run, open_run
from tests.measured import curve, results
from tests.tiny import LETTERS, Killed, kill_at_commits, tiny_config

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = "gcp-storage-emulator==2026.7.19"
PORT, BUCKET = 18861, "coevo"
START_SECONDS = 120.0
SMALL = ("warm_start.epochs=3", "model.num_layers=1", "recipe=eto")
WHERE = f"checkpoint.folder=gs://{BUCKET}/checkpoints"
LEARN = "round-01/learn_target"


# TensorStore asks which generation of an object it was given, which Google says in a header and the emulator
# does not.
START = """
from gcp_storage_emulator.handlers import objects
plain = objects.download
def download(request, response, storage, *args, **kwargs):
    try:
        found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found["generation"]
    except objects.NotFound:
        pass
    return plain(request, response, storage, *args, **kwargs)
objects.download = download
from gcp_storage_emulator.__main__ import main
main()
"""


@contextmanager
def served(library: Path) -> Iterator[dict[str, str]]:
    """The emulator, ended afterwards; gives what a process needs to use it."""
    paths = os.pathsep.join([*filter(None, sys.path), str(library)])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    options = ("start", "--host=127.0.0.1", f"--port={PORT}", "--in-memory", f"--default-bucket={BUCKET}")
    quiet = subprocess.DEVNULL  # a line for each request
    process = subprocess.Popen([sys.executable, "-c", START, *options], env=environment, stderr=quiet)
    url = f"http://127.0.0.1:{PORT}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{url}/storage/v1/b/{BUCKET}", timeout=5).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the emulator did not start") from None
                time.sleep(0.2)
        yield environment | {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
    finally:
        process.terminate()
        process.wait(20)


def play(folder: Path) -> None:
    """A run that is killed inside a learning and goes on, beside one on a disk; then objects are damaged."""
    ENVIRONMENTS["letters"] = LETTERS
    whole = create_run(tiny_config(folder / "disk", *SMALL))
    coevolve(whole)
    whole.close()
    run = create_run(tiny_config(folder / "bucket", *SMALL, WHERE))

    def inside(manifest: Manifest) -> bool:
        return manifest.running is not None and manifest.running.name == LEARN

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at_commits(patch, "after", first=2, counted=inside)
        coevolve(run)
    run.close()
    copy = folder / "copy" / "runs" / "tiny"
    shutil.copytree(run.folder, copy)
    forked = fork_run(copy, tiny_config(folder / "forked", *SMALL, WHERE, "name=forked"), learned=True)
    run = open_run(run.folder)
    for one in (run, forked):  # one goes on, the other begins with its objects copied
        coevolve(one)
        one.close()
        assert results(one.folder) == results(whole.folder) and curve(one.folder) == curve(whole.folder)
    manifest = read_manifest(run.folder)
    place = checkpoint_root(run.folder, manifest) / str(manifest.checkpoint)
    digests = manifest.checkpoint_digests[str(manifest.checkpoint)]
    assert set(digests) == set(file_sizes(place)) and all(one.startswith(CRC32C) for one in digests.values())
    assert not list(file_problems(open_files(run.folder)))
    print(f"{len(digests)} objects of checkpoint {manifest.checkpoint} have checksums", flush=True)
    sizes = file_sizes(place)
    damaged(run.folder, place / max(sizes, key=lambda name: sizes[name]))


def damaged(folder: Path, victim: epath.Path) -> None:
    """A flipped bit and a missing object are refused by name, and the audit names them, too."""
    content = victim.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    victim.write_bytes(bytes(flipped))
    refused(folder, victim, "found crc32c:")
    victim.unlink()
    refused(folder, victim, "missing")
    victim.write_bytes(content)
    assert not list(file_problems(open_files(folder)))
    print("a flipped bit and a missing object are refused by name", flush=True)


def refused(folder: Path, victim: epath.Path, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        run = open_run(folder)
        try:
            assert run.manifest.checkpoint is not None
            run.checkpoints.agents(run.manifest.checkpoint)
        finally:
            run.close()
    assert str(error.value).startswith(f"{victim}: {words}"), error.value
    assert any(str(victim) in problem for problem in file_problems(open_files(folder)))


def main(folder: Path) -> int:
    library = folder / "lib"
    lines = (ROOT / "requirements-bucket.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.startswith("gcsfs")]
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(library)]
    subprocess.run([*install, *wanted, EMULATOR], check=True)
    with served(library) as environment:
        command = [sys.executable, "-m", "tests.real.bucket", "play", str(folder)]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1] == "play":
        play(Path(sys.argv[2]))
    else:
        sys.exit(main(Path(sys.argv[1])))
