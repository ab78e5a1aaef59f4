"""Files that are written again as they grow: the same bytes as those of who writes all of it anew."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.run_folder.manifest import (
    MANIFEST,
    SELF,
    PhaseRecord,
    content_digest,
    read_manifest,
    to_plain,
    write_manifest,
)
from coevo_jax.run_folder.results import RESULTS_FILE, ResultsFile, load_results
from tests.report.made_run import empty_results
from tests.run_folder.records import COMMITTED


def test_a_record_is_read_as_it_was_written_with_the_digest_of_its_content(tmp_path):
    odd = PhaseRecord(name="round-01/learn_target", records={"b": [{"ä\n": 1.5}, None], "a": {}})
    for manifest in (COMMITTED, replace(COMMITTED, done=()), COMMITTED.finish(odd)):
        write_manifest(tmp_path, manifest)
        content = json.loads((tmp_path / MANIFEST).read_text())
        assert content.pop(SELF) == content_digest(content)
        assert content == json.loads(json.dumps(to_plain(manifest)))
        assert read_manifest(tmp_path) == manifest
    lines = (tmp_path / MANIFEST).read_text().splitlines()
    assert [odd.name in line for line in lines].count(True) == 1


def test_a_record_without_its_digest_is_that_of_an_earlier_version_or_refused(tmp_path):
    write_manifest(tmp_path, COMMITTED)
    content = json.loads((tmp_path / MANIFEST).read_text())
    del content[SELF]
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"manifest\.json: changed since it was committed \(no sha256\)"):
        read_manifest(tmp_path)
    for name in ("metrics_sha256", "checkpoint_digests"):  # which no version wrote without it
        del content[name]
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    assert read_manifest(tmp_path) == COMMITTED


def test_results_that_grow_have_the_bytes_of_those_written_anew(tmp_path):
    (tmp_path / "anew").mkdir()
    results = empty_results("soak", "coevo", 0, 3)
    steps = [{"name": f"phase {number}\n", "seconds": 1.5} for number in range(4)]
    signs = [{"round": 1, "agent": "target", "why": "ä"}]
    shown = [
        results,
        results | {"phases": steps[:1]},
        results | {"phases": steps[:3], "collapses": signs},
        results | {"phases": [*steps[:1], steps[3]]},  # another one in the second's place
        results,
    ]
    assert all(before != after for before, after in pairwise(shown))
    growing = ResultsFile(tmp_path)
    for one in shown:
        growing.save(one)
        content = (tmp_path / RESULTS_FILE).read_text()
        assert content == ResultsFile(tmp_path / "anew").save(one).read_text()
        assert content == json.dumps(one, indent=1) + "\n"
        assert load_results(tmp_path) == one
    with pytest.raises(ConfigError, match=r"results\.json: phases\[1\] lacks seconds"):
        growing.save(results | {"phases": [steps[0], {"name": "x"}]})
