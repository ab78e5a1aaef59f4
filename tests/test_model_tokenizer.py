"""A run with the tokenizer of a model's folder: refused before it begins, or the same everywhere in it."""

import json

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format, render
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.phases.prepare import prepare
from coevo_jax.phases.world import EXPERTS_FILE, check_world, open_env
from coevo_jax.run_folder.run import create_run
from tests.data.chat.families import make_tokenizer
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")


def test_a_model_folder_without_tokenizer_stops_the_run_before_it_begins(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    config = tiny_config(tmp_path, f"tokenizer.path={folder}")
    with pytest.raises(ConfigError, match=r"model: holds no tokenizer: found no tokenizer\.json"):
        check_world(config)
    make_tokenizer("qwen3", chat_template="{{ messages[0].content }}").save_pretrained(folder)
    with pytest.raises(ConfigError, match="model: its chat template cannot be used: "):
        check_world(config)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["llama2", "llama32"])
def test_experts_are_rendered_by_the_models_own_template(tmp_path, name):
    folder = tmp_path / "model"
    make_tokenizer(name).save_pretrained(folder)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described |= {"tokenizer_class": "LlamaTokenizer", "legacy": True} if name == "llama2" else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    config = tiny_config(
        tmp_path, f"tokenizer.path={folder}", "batch.row_length=256", "rollout.max_tokens=256"
    )
    check_world(config)
    run = create_run(config)
    prepare(run)
    run.close()
    env, chat = open_env(config)(), chat_format(make_tokenizer(name))
    in_run = chat_format(load_tokenizer(run.folder / "tokenizer"))
    experts = read_trajectories([run.folder / EXPERTS_FILE])
    assert len(experts) == 60
    for expert in experts:
        for format in (chat, in_run):
            tokens, mask = render(format, env.system_prompt, expert.prompt, expert.turns)
            assert tokens.tolist() == expert.tokens.tolist()
            assert mask.tolist() == expert.agent_mask.tolist()
