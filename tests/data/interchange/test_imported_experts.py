"""A run whose warm start imitates an imported expert set."""

import json

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.phases.agents import restore_agents
from coevo_jax.phases.prepare import prepare
from coevo_jax.phases.warm_start import warm_start
from coevo_jax.phases.world import EXPERTS_FILE, IMPORTED_FILE, build_world, check_world
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.run import create_run
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")


def write_set(path, count):
    rows = [
        {
            "id": f"theirs/{number}",
            "conversations": [
                {"from": "human", "value": "An instruction of theirs."},
                {"from": "gpt", "value": "OK"},
                {"from": "human", "value": f"Zebra {number}"},
                {"from": "gpt", "value": f"Action: zebra {number}"},
            ],
        }
        for number in range(count)
    ]
    path.write_text(json.dumps(rows))
    return path


def prepared(tmp_path):
    """A run with six imported rows and a broken one, of which four are imitated; after `prepare`."""
    path = write_set(tmp_path / "sft.json", 6)
    path.write_text(path.read_text()[:-1] + ', {"id": "broken"}]')
    overrides = [f"warm_start.data={path}", "warm_start.data_errors=skip", 'warm_start.tasks="1:5"']
    config = tiny_config(tmp_path, *overrides, "warm_start.epochs=1")
    check_world(config)
    run = create_run(config)
    prepare(run)
    return run


def test_the_imported_set_is_rendered_and_trains_the_tokenizer(tmp_path, capsys):
    run = prepared(tmp_path)
    run.close()
    imported = read_trajectories([run.folder / IMPORTED_FILE])
    assert [trajectory.task_id for trajectory in imported] == [f"theirs/{number}" for number in range(1, 5)]
    chat = chat_format(load_tokenizer(run.folder / "tokenizer"))
    expected = chat.prompt_ids("", "Zebra 1") + chat.response_ids("Action: zebra 1")
    assert imported[0].tokens.tolist() == expected  # the environment's system prompt, which is empty
    assert len(chat.response_ids(" zebra")) == 2  # the tokenizer was trained on these texts
    explored = {trajectory.task_id for trajectory in read_trajectories([run.folder / EXPERTS_FILE])}
    assert explored == {f"train/{number}" for number in range(40, 60)}
    assert "4 of 6 rows, 1 broken rows left out" in capsys.readouterr().out


@pytest.mark.slow
def test_the_warm_start_learns_from_the_imported_set_alone(tmp_path):
    run = prepared(tmp_path)
    world = build_world(run.config, run.folder)
    try:
        agents = restore_agents(run, world)
        warm_start(
            run, world, agents, next(phase for phase in schedule(run.config) if phase.name == "warm_start")
        )
    finally:
        world.close()
        run.close()
    record = run.manifest.record("warm_start")
    assert record is not None and record.records["experts"] == 4


def test_a_broken_or_missing_set_stops_the_run_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json: no such file"):
        check_world(tiny_config(tmp_path, f"warm_start.data={tmp_path / 'none.json'}"))
    path = write_set(tmp_path / "sft.json", 3)
    path.write_text(path.read_text().replace('"gpt"', '"gtp"', 1))
    run = create_run(tiny_config(tmp_path, f"warm_start.data={path}"))
    with pytest.raises(ConfigError, match=r"sft\.json: element 0 \(line 1\): .*'gtp'"):
        prepare(run)
    run.close()
