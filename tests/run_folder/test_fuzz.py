"""Damaged records by the hundred: each is read as it was, or is one clear error that names its file."""

import json
import random
from collections.abc import Iterator

import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.run_folder.manifest import SELF, content_digest, read_manifest, verify_files, write_manifest
from coevo_jax.run_folder.metrics import MetricsLog, read_metrics
from coevo_jax.trajectory import Ending
from tests.data.test_parquet import assert_same, trajectory
from tests.run_folder.records import COMMITTED

SEEDS = [range(60), pytest.param(range(60, 560), marks=pytest.mark.slow)]
ODD = [
    None,
    True,
    -1,
    0,
    3.5,
    float("nan"),
    10**30,
    "",
    "..",
    "../x",
    "/etc",
    "\0",
    "\ud800",
    [],
    {},
    [[]],
    {"": []},
]


def damaged(content: bytes, rng: random.Random, least: int = 0) -> bytes:
    """A text with some bits flipped from a place on, cut, or with a piece that stands twice."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        found[rng.randrange(least, len(found))] ^= 1 << rng.randrange(8)
    kind = rng.random()
    if kind < 0.2:
        del found[rng.randrange(least, len(found)) :]
    elif kind < 0.3:
        at = rng.randrange(least, len(found))
        found[at:at] = found[at : at + 20]
    return bytes(found)


def places(data: object, way: tuple = ()) -> Iterator[tuple]:
    """The way to every value of plain data."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield (*way, key)
            yield from places(value, (*way, key))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a committed record, the files that it names and a log."""
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_bytes(b"")
    write_manifest(folder, COMMITTED)
    return folder


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_damaged_manifest_is_named_or_read_as_it_was(run, seeds):
    path = run / "manifest.json"
    write_manifest(run, COMMITTED)
    whole, same = path.read_bytes(), 0
    for seed in seeds:
        path.write_bytes(damaged(whole, random.Random(seed)))
        try:
            assert read_manifest(run) == COMMITTED
            same += 1
        except ConfigError as error:
            assert str(path) in str(error)
    assert same < len(seeds) / 2


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_manifest_edited_with_its_digest_is_named_or_of_the_types_of_a_record(run, seeds):
    path = run / "manifest.json"
    write_manifest(run, COMMITTED)
    whole = json.loads(path.read_text())
    ways = list(places(whole))
    for seed in seeds:
        rng = random.Random(seed)
        content = json.loads(json.dumps(whole))
        *way, last = rng.choice(ways)
        inside = content
        for key in way:
            inside = inside[key]
        if rng.random() < 0.8:
            inside[last] = rng.choice(ODD)
        else:
            del inside[last]
        path.write_text(json.dumps(content | {SELF: content_digest(content)}))
        try:
            verify_files(run, read_manifest(run))
        except ConfigError as error:
            assert str(run) in str(error), seed


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_damaged_log_of_metrics_is_named_or_read(tmp_path, seeds):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in range(4):
            log.write(step, "learn", {"loss": step / 3, "nothing": float("nan")})
    whole = path.read_bytes()
    for seed in seeds:
        path.write_bytes(damaged(whole, random.Random(seed)))
        try:
            lines = read_metrics(path)
        except ConfigError as error:
            assert f"{path}:" in str(error)
        else:
            assert all(type(line["step"]) is int and type(line["phase"]) is str for line in lines)


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_damaged_parquet_footer_is_named_or_every_row_is_as_it_was(tmp_path, seeds):
    path = tmp_path / "a.parquet"
    written = [trajectory(task_id=f"task {ending}", ending=ending) for ending in Ending]
    write_trajectories(path, written)
    whole = path.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for seed in seeds:
        path.write_bytes(damaged(whole, random.Random(seed), len(whole) - footer - 8))
        try:
            read = read_trajectories([path])
        except ConfigError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            for left, right in zip(read, written, strict=True):
                assert_same(left, right)
    assert refused > len(seeds) / 2


def test_a_row_with_numbers_that_are_none_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    tokens = trajectory(tokens=np.array([1, -5, 7], np.int32))
    logps = trajectory(logps=np.array([0, np.nan, 0], np.float32))
    for broken, words in ((tokens, "tokens: found -5"), (logps, "logps: found nan")):
        write_trajectories(path, [trajectory(), broken])
        with pytest.raises(ConfigError, match=f"{path}: row 1: {words}"):
            read_trajectories([path])
