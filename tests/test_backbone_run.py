"""Runs that begin with a Hugging Face checkpoint: what they train, store, export, and refuse beforehand."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from coevo_jax.audit.audit import run_audit
from coevo_jax.coevolution import coevolve
from coevo_jax.commands.evaluate import main as evaluate_main
from coevo_jax.commands.export import main as export_main
from coevo_jax.commands.train import main as train_main
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.models.lora import whole_params
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.phases.agents import load_agent
from coevo_jax.phases.world import check_world
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import create_run, open_run
from tests.data.chat.families import make_tokenizer
from tests.models.checkpoints import learner_of, params_of, write_checkpoint
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("letters")

SHORT = ("warm_start.epochs=1", "warm_start.tasks='0:8'", "evaluate.tasks=':4'")
ROOM = ("batch.row_length=192", "rollout.max_tokens=192")
EMBEDDED = 760  # rows of the embedding: more than any of the tokenizers has tokens


def backbone(folder, model, chat, **options):
    """A checkpoint folder with weights, tokenizer and chat template."""
    write_checkpoint(model, folder, vocab_size=EMBEDDED, **options)
    make_tokenizer(chat).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "temperature": 0.6}))
    return folder


def config_on(tmp_path, folder, *overrides):
    """The tiny config with a checkpoint in place of its own model."""
    home = tmp_path / "config"
    home.mkdir(exist_ok=True)
    path = write_config(home)
    text = path.read_text().replace('tasks: ["40:60"]', 'tasks: ["40:44"]')
    lines = [line for line in text.splitlines() if not line.startswith(("model:", "tokenizer:"))]
    path.write_text("\n".join([*lines, f"model: {{path: {folder}}}"]))
    return load_config(path, [f"runs_dir={home / 'runs'}", *SHORT, *ROOM, *overrides])


def finished(config):
    check_world(config)
    run = create_run(config)
    coevolve(run)
    run.close()
    return run


def agent_of(run, name="target"):
    return load_agent(
        run.folder, read_manifest(run.folder), name, learner_of(run.config.model, run.config.mesh)
    )


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_adapters_of_a_checkpoint(tmp_path):
    """The base keeps its bits in bfloat16, is not written again, and may move once it is stored."""
    folder = backbone(tmp_path / "gemma", "gemma3", "gemma3", dtype="bfloat16")
    lora = "model.lora={rank: 2, warm_start: adapter, base_dtype: bfloat16}"
    run = finished(config_on(tmp_path, folder, lora, "rounds=0"))
    agent, tokenizer = agent_of(run), make_tokenizer("gemma3")
    expected = params_of(folder, run.config.model.model_copy(update={"lora": None}))
    same(agent.frozen, jax.tree.map(lambda leaf: np.asarray(leaf).astype(ml_dtypes.bfloat16), expected))
    assert max(np.abs(factors["b"]).max() for factors in agent.params["layers"].values()) > 0
    expert = read_trajectories([run.folder / "trajectories" / "experts.parquet"])[0]
    ends = expert.tokens[expert.agent_mask] == tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert ends.sum() == len(expert.turns)
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    export_main([str(run.folder), "--out", str(adapter), "--adapter"])
    export_main([str(run.folder), "--out", str(merged), "--dtype", "bfloat16"])
    described = json.loads((adapter / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(folder) and not (adapter / "base").exists()
    config = json.loads((merged / "config.json").read_text())
    assert config["model_type"] == "gemma3_text" and config["dtype"] == "bfloat16"
    generation = json.loads((merged / "generation_config.json").read_text())
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert generation["eos_token_id"] == [1, end] and generation["temperature"] == 0.6
    untouched = load_file(merged / "model.safetensors")["model.embed_tokens.weight"]
    stored = next(
        t for t in map(load_file, sorted(folder.glob("*.safetensors"))) if "model.embed_tokens.weight" in t
    )
    assert untouched.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(untouched, stored["model.embed_tokens.weight"])
    folder.rename(tmp_path / "moved")
    open_run(run.folder).close()
    evaluate_main([str(run.folder), "--split", "dev", "--tasks", ":2"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "lora", [(), ("model.lora={rank: 2, warm_start: adapter}",)], ids=["whole", "adapters"]
)
def test_the_audit_takes_the_first_loss_from_the_checkpoint(lora, tmp_path):
    folder = backbone(tmp_path / "qwen", "qwen3", "qwen3")
    run = finished(config_on(tmp_path, folder, *lora, "rounds=0", "checkpoint.keep=all"))
    checks = {check.name: check for check in run_audit(run.folder)}
    assert checks["loss/warm_start"].state == "held", checks["loss/warm_start"].words
    assert {check.name for check in checks.values() if check.state == "BROKEN"} == set()
    shutil.rmtree(folder)
    gone = {check.name: check for check in run_audit(run.folder)}["loss/warm_start"]
    assert gone.state == "not checkable" and str(folder) in gone.words


def refusal(tmp_path, folder, *overrides):
    """What `launch.train` says before it writes anything."""
    with pytest.raises(ConfigError) as error:
        check_world(config_on(tmp_path, folder, *overrides))
    assert not (tmp_path / "config" / "runs").exists()
    return str(error.value)


def test_what_cannot_be_used_is_said_before_anything_starts(tmp_path):
    folder = backbone(tmp_path / "llama", "llama31", "llama31")
    check_world(config_on(tmp_path, folder))
    last = sorted(folder.glob("*.safetensors"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-3])
    assert f"{last}: cannot be read as a safetensors file; it may be truncated" in refusal(tmp_path, folder)
    last.write_bytes(whole)
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    assert "holds no tokenizer: found no tokenizer.json" in refusal(tmp_path, folder)
    shutil.copy(tmp_path / "tokenizer.json", folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"vocab_size": 300}))
    words = refusal(tmp_path, folder)
    assert "tokens, the embedding of" in words and "only 300 rows (model.vocab_size)" in words
    (folder / "config.json").write_text(json.dumps(described | {"max_position_embeddings": 100}))
    assert "rollout.max_tokens 192 exceeds the model's context of 100" in refusal(tmp_path, folder)
    (folder / "config.json").write_text(json.dumps(described | {"model_type": "mamba"}))
    assert "found 'mamba', which is not supported; expected one of llama" in refusal(tmp_path, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "chat"), [("llama31", "llama31"), ("qwen3", "qwen3_instruct")])
def test_a_whole_run_from_a_checkpoint_and_back(model, chat, tmp_path):
    """Co-evolution with all parameters; PyTorch agrees on the export, which a next run begins with."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = backbone(tmp_path / "backbone", model, chat)
    run = finished(config_on(tmp_path, folder))
    manifest = read_manifest(run.folder)
    assert manifest.record("round-01/learn_target") is not None
    out = tmp_path / "exported"
    export_main([str(run.folder), "--agent", "failure", "--out", str(out)])
    agent = agent_of(run, "failure")
    params = whole_params(agent.params, agent.frozen, run.config.model)
    same(params_of(out, run.config.model), params)
    assert np.abs(params["embedding"] - params_of(folder, run.config.model)["embedding"]).max() > 0
    tokens = np.random.default_rng(0).integers(0, EMBEDDED, (2, 60)).astype(np.int32)
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    expected = theirs(torch.from_numpy(tokens).long()).logits.detach().numpy()
    positions = jnp.broadcast_to(jnp.arange(60), tokens.shape)
    hidden = Transformer(run.config.model, EMBEDDED).apply(
        {"params": params}, tokens, positions, jnp.full_like(tokens, 60)
    )
    np.testing.assert_allclose(output_logits(params, hidden), expected, atol=1e-4)
    text = "Thought: I count.\nAction: submit"
    assert AutoTokenizer.from_pretrained(out)(text)["input_ids"] == make_tokenizer(chat)(text)["input_ids"]
    check_world(config_on(tmp_path, out, "name=next"))


def test_the_command_line_refuses_with_one_message(tmp_path):
    path = write_config(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.path .*nowhere: no such folder"):
        train_main([str(path), f"model.path={tmp_path / 'nowhere'}"])
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["tiny.yaml"]
