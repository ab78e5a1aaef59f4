"""A round of co-evolution on a tiny random model with a real tokenizer, its export, and a run from that."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.coevolution import coevolve
from coevo_jax.config.reading import load_config
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.envs.registry import ENVIRONMENTS
from coevo_jax.models.lora import whole_params
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.phases.agents import load_agent
from coevo_jax.phases.world import check_world
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import Run, create_run
from coevo_jax.stored.evaluate import evaluate_stored
from coevo_jax.stored.export import export_agent
from tests.models.checkpoints import learner_of, params_of, write_checkpoint
from tests.tiny import CONFIG, LETTERS

WARM = ("warm_start.epochs=1", "warm_start.tasks='0:3'", "evaluate.tasks=':1'")
ROOM = ("batch.row_length=384", "rollout.max_tokens=384", "rollout.slots=2")
TURNS = ("rollout.max_turn_tokens=6", "rollout.decode_block=6")
ROUND = (
    *("explore.tasks=['40:42']", "explore.samples=1"),
    *("agents.target.epochs=1", "agents.failure.epochs=1"),
)
ADAPTERS = "model.lora={rank: 4, warm_start: adapter, base_dtype: bfloat16}"
COMPARED = 40  # tokens whose logits are compared
ROWS_OF_EMBEDDING = 64  # to a multiple of which a vocabulary is rounded up, as published models' are


def model_folder(folder: Path, tokenizer: Path, model: str, *, rows: int | None = None) -> Path:
    """Random weights of a family beside a tokenizer's files, as a user has them."""
    if rows is None:
        size = chat_format(load_tokenizer(tokenizer)).vocab_size
        rows = -(-size // ROWS_OF_EMBEDDING) * ROWS_OF_EMBEDDING
    write_checkpoint(
        model, folder, dtype="bfloat16", shard_bytes=10**9, vocab_size=rows, max_position_embeddings=1024
    )
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def run_from(home: Path, name: str, folder: Path, *overrides: str) -> Run:
    """A finished run of the toy environment that begins with a model's folder."""
    home.mkdir(parents=True, exist_ok=True)
    lines = [line for line in CONFIG.splitlines() if not line.startswith(("model:", "tokenizer:", "name:"))]
    path = home / f"{name}.yaml"
    path.write_text("\n".join([*lines, f"name: {name}", f"model: {{path: {folder}}}"]))
    ENVIRONMENTS["letters"] = LETTERS
    config = load_config(path, [f"runs_dir={home / 'runs'}", *WARM, *ROOM, *TURNS, *overrides])
    check_world(config)
    run = create_run(config)
    coevolve(run)
    run.close()
    return run


def trained_and_exported(home: Path, folder: Path, *overrides: str) -> dict[str, int]:
    """One round, the export, an evaluation, and a further warm start from the export; counts of each.

    Raises:
      AssertionError: the export is not the agent, or the next run does not begin with it.
    """
    run = run_from(home, "first", folder, *ROUND, *overrides)
    manifest = read_manifest(run.folder)
    assert manifest.record("round-01/learn_target") is not None
    out = export_agent(run.folder, home / "exported", agent="target", form="merged")
    config = run.config.model
    agent = load_agent(run.folder, manifest, "target", learner_of(config, run.config.mesh))
    whole = whole_params(agent.params, agent.frozen, config)
    bare = config.model_copy(update={"lora": None})
    jax.tree.map(np.testing.assert_array_equal, params_of(out, bare), whole)
    summary, path = evaluate_stored(
        run.folder, agent="target", split="dev", tasks=":1", temperature=0.0, samples=1
    )
    generated = sum(one.written_tokens for one in read_trajectories([path.with_suffix(".parquet")]))
    further = run_from(home, "further", out, "rounds=0")
    begun = load_tokenizer(further.folder / "tokenizer")
    assert begun.get_vocab() == load_tokenizer(folder).get_vocab()
    steps = len((further.folder / "metrics.jsonl").read_text().splitlines())
    assert summary["n"] == 1 and generated > 0 and steps > 0
    return {"generated": generated, "lines": steps}


def write_logits(run: Run, out: Path, agent: str = "target", dtype: str = "float32") -> None:
    """Put tokens, and the logits that an export in `dtype` is to give of them, beside it."""
    config = run.config.model
    stored = load_agent(run.folder, read_manifest(run.folder), agent, learner_of(config, run.config.mesh))
    params = whole_params(stored.params, stored.frozen, config)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float32), params)
    vocab = params["embedding"].shape[0]
    tokens = np.random.default_rng(0).integers(0, vocab, (1, COMPARED)).astype(np.int32)
    bare = config.model_copy(update={"lora": None, "dtype": "float32"})
    positions = jnp.broadcast_to(jnp.arange(COMPARED), tokens.shape)
    hidden = Transformer(bare, vocab).apply(
        {"params": params}, tokens, positions, jnp.full_like(tokens, COMPARED)
    )
    chat = chat_format(load_tokenizer(out))
    text = "<s>[INST] Be brief.</s> <|im_end|>\nCount. 'tis 42…"
    known = {
        "text": text,
        "ids": chat.tokenizer(text, add_special_tokens=False)["input_ids"],
        "prompt": chat.prompt_ids("", "Count."),
        "end": chat.end_id,
    }
    np.savez(out.with_suffix(".npz"), tokens=tokens, logits=np.asarray(output_logits(params, hidden)))
    out.with_suffix(".json").write_text(json.dumps(known))
