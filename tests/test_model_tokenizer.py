"""A run with the tokenizer of a model's folder: refused before it begins, or the same everywhere in it."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format, render
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.phases.prepare import prepare
from coevo_jax.phases.world import EXPERTS_FILE, check_world, embedded_tokens, open_env
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import create_run, open_run
from tests.data.chat.families import make_tokenizer
from tests.tiny import Killed, kill_at_commits, tiny_config

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


def test_a_kill_before_the_first_commit_leaves_a_folder_that_is_written_again(tmp_path, monkeypatch):
    """With a folder in it, of further chat templates."""
    folder = tmp_path / "model"
    make_tokenizer("qwen25").save_pretrained(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages[0].content }}")
    room = ("batch.row_length=256", "rollout.max_tokens=256")
    run = create_run(tiny_config(tmp_path, f"tokenizer.path={folder}", *room))
    with monkeypatch.context() as patch:
        kill_at_commits(patch, "before", first=1)
        with pytest.raises(Killed):
            prepare(run)
    run.close()
    run = open_run(run.folder)
    prepare(run)
    run.close()
    record = read_manifest(run.folder).record("prepare")
    assert record is not None
    assert "tokenizer/additional_chat_templates/tool_use.jinja" in record.files


def test_a_token_without_a_row_is_allowed_where_nothing_can_write_it(tmp_path):
    """Gemma 3's tokenizer has one for images behind the last row of the embedding."""
    tokenizer = make_tokenizer("gemma3")
    rows = len(tokenizer)
    tokenizer.add_tokens([AddedToken("<image_soft_token>", special=True)])
    tokenizer.save_pretrained(tmp_path)
    config = tiny_config(tmp_path / "run")

    def embedded(rows, **changes):
        model = config.model.model_copy(update={"vocab_size": rows, "path": "model"})
        found = load_tokenizer(tmp_path)
        for name, value in changes.items():
            setattr(found, name, value)
        return embedded_tokens(config.model_copy(update={"model": model}), chat_format(found))

    assert chat_format(load_tokenizer(tmp_path)).vocab_size == rows + 1
    assert embedded(rows) == rows
    with pytest.raises(ConfigError, match=rf"only {rows - 1} rows .* is token {rows - 1}; expected"):
        embedded(rows - 1)
    with pytest.raises(ConfigError, match=rf"'<image_soft_token>' is token {rows};"):
        embedded(rows, pad_token="<image_soft_token>")
    with pytest.raises(ConfigError, match=rf"'<image_soft_token>' is token {rows};"):
        embedded(rows, chat_template=tokenizer.chat_template.replace("<start", "<image_soft_token><start"))


def test_ids_that_are_left_out_count():
    tokenizer = make_tokenizer("qwen25")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"]["x" * 9] = 4999
    names = {"eos_token": "<|im_end|>", "chat_template": tokenizer.chat_template}
    sparse = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **names)
    assert len(sparse) < 1000
    assert chat_format(sparse).vocab_size == 5000
