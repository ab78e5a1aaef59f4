"""From outside, a run that is under way, one that has stopped and one that is finished are told apart."""

import re
from dataclasses import replace

import pytest

import coevo_jax.commands.actions.report as work
from coevo_jax.coevolution import collect_results
from coevo_jax.commands.report import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.recipe import schedule
from coevo_jax.report.html import write_report
from coevo_jax.run_folder.manifest import PhaseRecord, write_manifest
from coevo_jax.run_folder.run import create_run, open_run
from coevo_jax.run_folder.standing import standing_of
from tests.tiny import tiny_config


def begun(folder):
    """A run whose warm start is under way, as a process holds it."""
    run = create_run(tiny_config(folder))
    run.commit(PhaseRecord(name="prepare", records={"parameters": 1}), files=[], finished=True)
    run.show(collect_results(run))
    run.log.write(1, "warm_start", {"warm_start/loss": 2.0})
    return run


def test_the_page_of_a_run_under_way_shows_it_so_far_and_reads_itself_again(tmp_path, capsys):
    run = begun(tmp_path)
    standing = standing_of(run.folder)
    assert standing.under_way
    assert standing.words == (
        "The run is under way: 0 of 9 phases are done, warm_start is next or has begun."
    )
    main([str(run.folder)])
    assert standing.words in capsys.readouterr().out
    page = (run.folder / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="30">' in page and standing.words in page
    assert "No evaluation yet." in page
    assert '<section id="learning">' in page and "No training metrics yet" not in page
    run.close()


def test_one_that_has_stopped_says_how_it_goes_on_and_stays_as_it_is(tmp_path):
    run = begun(tmp_path)
    run.close()
    standing = standing_of(run.folder)
    assert not standing.under_way
    assert re.search(rf"has stopped: 0 of 9 .* --resume {run.folder}\.$", standing.words)
    page = write_report(run.folder).read_text()
    assert 'http-equiv="refresh"' not in page and "has stopped" in page
    open_run(run.folder).close()  # looking has left no lock


def test_one_that_is_finished_has_nothing_to_say_even_while_it_is_held(tmp_path):
    run = begun(tmp_path)
    done = tuple(PhaseRecord(name=phase.name) for phase in schedule(run.config))
    write_manifest(run.folder, replace(run.manifest, done=done))
    standing = standing_of(run.folder)
    assert (standing.under_way, standing.words) == (False, "")
    run.close()


def test_following_ends_with_the_run(tmp_path, monkeypatch):
    run = begun(tmp_path)
    pages = []

    def sleep(_seconds):
        run.log.write(len(pages) + 2, "warm_start", {"warm_start/loss": 1.0})
        if len(pages) == 1:
            run.close()

    monkeypatch.setattr(work.time, "sleep", sleep)
    monkeypatch.setattr(work, "write_report", lambda *place: pages.append(write_report(*place).read_text()))
    work.follow(run.folder, None)
    assert ['http-equiv="refresh"' in page for page in pages] == [True, False]


def test_several_runs_are_not_followed(tmp_path):
    with pytest.raises(ConfigError, match="--follow: found 2 runs"):
        main([str(tmp_path), str(tmp_path), "--follow"])
