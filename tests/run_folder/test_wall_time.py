"""The wall time of a run: what lies between its phases counts, and a resumed run goes on counting."""

import json
import time

import pytest

from coevo_jax.run_folder.folder import run_folder
from coevo_jax.run_folder.manifest import SELF, SINCE_SELF, read_manifest
from coevo_jax.run_folder.run import create_run, open_run
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")


def test_the_manifest_counts_from_commit_to_commit_and_on_after_a_resume(tmp_path):
    run = create_run(tiny_config(tmp_path))
    time.sleep(0.2)
    run.commit(run.begin("prepare"), files=[], finished=True)
    run.close()
    first = read_manifest(run.folder)
    assert first.seconds is not None and first.seconds >= 0.2 and first.done[0].seconds == 0
    again = open_run(run.folder)
    time.sleep(0.1)
    again.commit(again.begin("warm_start"), files=[], finished=True)
    again.close()
    last = read_manifest(run.folder).seconds
    assert last is not None and last >= first.seconds + 0.1


def test_a_run_that_an_earlier_version_began_has_no_wall_time(tmp_path):
    config = tiny_config(tmp_path)
    create_run(config).close()
    path = run_folder(config) / "manifest.json"
    record = json.loads(path.read_text())
    for name in ("seconds", SELF, *SINCE_SELF):  # it wrote none of them
        del record[name]
    path.write_text(json.dumps(record))
    run = open_run(path.parent)
    run.commit(run.begin("prepare"), files=[], finished=True)
    run.close()
    assert read_manifest(path.parent).seconds is None
