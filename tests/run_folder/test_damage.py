"""What changed in a run's folder is named before anything is learned on it."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from etils import epath

from coevo_jax.config.strict import ConfigError
from coevo_jax.run_folder.digests import Hashing, damage, file_digest, folder_digests
from coevo_jax.run_folder.intact import require_checkpoint
from coevo_jax.run_folder.manifest import (
    MANIFEST,
    SELF,
    SINCE_SELF,
    Manifest,
    PhaseRecord,
    read_manifest,
    verify_files,
    write_manifest,
)
from coevo_jax.run_folder.metrics import MetricsLog
from tests.tiny import write_config


def flip(path: Path, place: int = 0) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def run(tmp_path):
    """A folder with three checkpoints and a log, and its committed record."""
    shutil.copyfile(write_config(tmp_path / "its"), tmp_path / "config.yaml")
    for number in (0, 1, 2):
        folder = tmp_path / "checkpoints" / str(number) / "target" / "d"
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(bytes(range(number, number + 200)))
        (folder.parent / "meta").write_text("m")
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(1, "warm_start", {"loss": 1.5})
        offset, digest = log.offset(), log.digest()
        log.write(2, "warm_start", {"loss": 1.25})  # not committed
    manifest = Manifest(
        config_sha256="c",
        done=(PhaseRecord(name="warm_start", records={"checkpoint": 0}),),
        checkpoint=2,
        checkpoint_digests={
            str(number): folder_digests(epath.Path(tmp_path / "checkpoints" / str(number)))
            for number in (0, 1, 2)
        },
        metrics_offset=offset,
        metrics_sha256=digest,
    )
    write_manifest(tmp_path, manifest)
    return tmp_path


def test_a_folder_as_it_was_is_intact(run):
    manifest = read_manifest(run)
    verify_files(run, manifest)
    for number in (0, 1, 2):
        require_checkpoint(run, manifest, number)
    assert set(manifest.checkpoint_digests["1"]) == {"target/d/a", "target/meta"}
    require_checkpoint(run, replace(manifest, checkpoint_digests={}), 2)  # an earlier version's


@pytest.mark.parametrize("place", [0, 100, 199])
def test_a_flipped_bit_of_a_checkpoint_is_named_with_what_is_intact(run, place):
    manifest, victim = read_manifest(run), run / "checkpoints" / "2" / "target" / "d" / "a"
    flip(victim, place)
    told = rf"{victim}: changed since it was committed \(sha256: .*intact is where warm_start ended.*"
    with pytest.raises(ConfigError, match=rf"{told}--fork {run} {run}/config.yaml name={run.name}-2"):
        require_checkpoint(run, manifest, 2)
    require_checkpoint(run, manifest, 1)
    flip(run / "checkpoints" / "0" / "target" / "d" / "a")
    with pytest.raises(ConfigError, match=r"checkpoint 1 is intact, but no state .* begin a new run"):
        require_checkpoint(run, manifest, 2)
    flip(run / "checkpoints" / "1" / "target" / "meta")
    with pytest.raises(ConfigError, match=r"no checkpoint is intact, no state .* begin a new run"):
        require_checkpoint(run, manifest, 2)


def test_a_missing_file_of_a_checkpoint_is_named(run):
    victim = run / "checkpoints" / "0" / "target" / "meta"
    victim.unlink()
    with pytest.raises(ConfigError, match=f"{victim}: missing, expected sha256"):
        require_checkpoint(run, read_manifest(run), 0)


def test_a_flipped_bit_of_the_log_is_named_where_it_was_committed(run):
    manifest = read_manifest(run)
    flip(run / "metrics.jsonl", manifest.metrics_offset + 3)
    verify_files(run, manifest)  # that line is dropped anyway
    flip(run / "metrics.jsonl", manifest.metrics_offset - 3)
    with pytest.raises(ConfigError, match=r"metrics.jsonl: changed since it was committed"):
        verify_files(run, manifest)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"metrics.jsonl: missing, but manifest.json has its sha256"):
        verify_files(run, manifest)


def test_an_edited_record_is_seen_and_one_of_an_earlier_version_read(run):
    content = json.loads((run / MANIFEST).read_text())
    (run / MANIFEST).write_text(json.dumps(content, indent=4))  # the same in another layout
    assert read_manifest(run).checkpoint == 2
    (run / MANIFEST).write_text(json.dumps(content | {"checkpoint": 1}))
    with pytest.raises(ConfigError, match=r"manifest.json: changed since it was committed"):
        read_manifest(run)
    for name in (SELF, *SINCE_SELF):
        del content[name]
    (run / MANIFEST).write_text(json.dumps(content | {"checkpoint": 1}))
    assert read_manifest(run).checkpoint == 1


def test_the_log_s_digest_is_that_of_its_bytes_however_it_was_cut(tmp_path):
    def bytes_digest():
        return hashlib.sha256((tmp_path / "m.jsonl").read_bytes()).hexdigest()

    with MetricsLog(tmp_path / "m.jsonl") as log:
        assert log.digest() == hashlib.sha256().hexdigest()
        for step in range(5):
            log.write(step, "p", {"x": step})
            assert log.digest() == log.digest() == bytes_digest()
        log.truncate(log.offset() // 2)
        assert log.digest() == bytes_digest()
        log.write(9, "p", {"x": 1})
        assert log.digest() == bytes_digest()
    with MetricsLog(tmp_path / "m.jsonl") as log:  # opened again
        assert log.digest() == bytes_digest()
    assert (
        file_digest(tmp_path / "m.jsonl", 7)
        == hashlib.sha256((tmp_path / "m.jsonl").read_bytes()[:7]).hexdigest()
    )


class Bucket:
    """Stands for a file system of fsspec: what a bucket tells of its objects."""

    def __init__(self, objects):
        self.objects, self.asked_anew = objects, 0

    def invalidate_cache(self):
        self.asked_anew += 1

    def find(self, root, detail):
        assert detail and root == "bucket/run/0"
        return {f"{root}/{name}": {"crc32c": one} for name, one in self.objects.items()}


def test_on_a_bucket_its_own_checksums_count(monkeypatch):
    bucket, folder = Bucket({"target/a": "yZRlqg==", "b": "AAAAAA=="}), epath.Path("gs://bucket/run/0")
    monkeypatch.setattr("etils.epath.backend.fsspec_backend.fs", lambda path: bucket)
    known = Hashing(folder).result()
    assert known == {"target/a": "crc32c:yZRlqg==", "b": "crc32c:AAAAAA=="}
    assert damage(folder, known) is None and bucket.asked_anew == 2
    bucket.objects["target/a"] = "AAAAAA=="
    told = r"gs://bucket/run/0/target/a: found crc32c:AAAAAA==, expected crc32c:yZRlqg=="
    assert re.match(told, damage(folder, known))
    del bucket.objects["target/a"]
    assert "target/a: found no object, expected" in damage(folder, known)
    bucket.objects["target/a"] = None
    with pytest.raises(OSError, match=r"target/a: the bucket tells no crc32c of it"):
        damage(folder, known)


def test_digests_are_made_beside_the_caller_and_tell_what_failed(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    hashing = Hashing(epath.Path(tmp_path))
    assert hashing.result() == {"a": hashlib.sha256(b"x" * 3_000_000).hexdigest()}
    assert hashing.done()
    assert damage(epath.Path(tmp_path), hashing.result()) is None
    with pytest.raises(OSError, match="none"):
        Hashing(epath.Path(tmp_path / "none")).result()
