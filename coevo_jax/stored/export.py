"""Write a stored agent as a folder that transformers, vLLM and PEFT load: what `launch.export` does."""

from pathlib import Path

from coevo_jax.config.options import MeshConfig
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.recipe_queries import mark_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.files import require_writable
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.models.huggingface.save import check_exportable
from coevo_jax.models.transformer import Transformer
from coevo_jax.phases.agent_folder import write_agent
from coevo_jax.phases.agents import load_agent, newest_checkpoint
from coevo_jax.phases.world import TOKENIZER_DIR, embedded_tokens
from coevo_jax.progress import CONSOLE
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import read_manifest, verify_files
from coevo_jax.sharding import make_mesh
from coevo_jax.stored.rounding import newest_played, rounding_cost


def export_agent(folder: Path, out: Path, *, agent: str, form: str, dtype: str = "float32") -> Path:
    """Write an agent's newest checkpoint to a new folder, whole or not at all. Returns the folder.

    A model that began as a Hugging Face checkpoint keeps that one's config.json; one from scratch is a Qwen3.

    Where weights are rounded or adapters merged, what that costs is measured on stored trajectories and said.

    Where the recipe evaluates the agent under a mark, `prompt_mark.json` says so: whoever uses the model puts
    a task in the place of {task} in it.

    Args:
      form: a key of FORMS. "merged" is one model of all parameters, for any run. "adapter" is a PEFT adapter,
        for runs with `model.lora`; the base it belongs to is the checkpoint the run began with where that is
        still the base, else a folder `base` beside it.
      dtype: of a whole model's weights; "float32" keeps every bit, "bfloat16" halves the files.

    Raises:
      ConfigError: the folder exists, the run is damaged or holds no such agent, or it has no such form.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists already and is not an empty folder; nothing is overwritten")
    manifest = read_manifest(folder)
    config = load_resolved(folder / CONFIG_FILE)
    if form == "adapter" and config.model.lora is None:
        raise ConfigError(f"{folder}: its agents have no adapters (model.lora is null); use --merged")
    check_exportable(config.model)
    verify_files(folder, manifest)
    newest_checkpoint(folder, manifest, agent)
    require_writable(out / "config.json" if out.exists() else out)
    chat = chat_format(load_tokenizer(folder / TOKENIZER_DIR))
    model = Transformer(config.model, embedded_tokens(config, chat))
    learner = make_learner(model, make_optimizer(config.optimizer), make_mesh(MeshConfig()))
    stored = load_agent(folder, manifest, agent, learner)
    mark = mark_of(config.recipe, agent)
    out = write_agent(folder, config, stored, out, form=form, dtype=dtype, mark=mark)
    if dtype != "float32" or (stored.frozen and form == "merged"):
        cost = rounding_cost(
            stored,
            model,
            newest_played(folder, manifest, config, agent),
            form=form,
            dtype=dtype,
            row_length=config.batch.row_length,
            pad_id=chat.pad_id,
        )
        if cost is not None:
            CONSOLE.print(cost.words(form, dtype), soft_wrap=True)
    return out
