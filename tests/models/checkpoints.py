"""Checkpoint folders of the families in `tests.models.families`, made and read without PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.config.architectures import read_architecture
from coevo_jax.config.options import MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.config.strict import validate
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.huggingface.save import save_params
from coevo_jax.models.transformer import Transformer
from coevo_jax.sharding import make_mesh
from tests.models.families import FAMILIES

SINGLE = MeshConfig()


def config_of(folder, **options) -> ModelConfig:
    """The options of `model` for a checkpoint folder."""
    return validate(ModelConfig, {"path": str(folder), **read_architecture(folder), **options}, "test")


def write_checkpoint(name, folder, *, dtype="float32", shard_bytes=60_000, **changes):
    """A folder with config.json and random weights of a family; returns its config and the parameters.

    `changes` replace keys of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = FAMILIES[name]()
    described.update(changes)
    described.save_pretrained(folder)
    config = config_of(folder)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(scale=0.15, size=leaf.shape).astype(jnp.dtype(dtype)).astype(np.float32),
        learner_of(config).abstract().params,
    )
    save_params(folder, params, config, dtype=dtype, shard_bytes=shard_bytes)
    return config, params


def learner_of(config: ModelConfig, mesh: MeshConfig = SINGLE):
    model = Transformer(config, config.vocab_size)
    return make_learner(model, make_optimizer(OptimizerConfig()), make_mesh(mesh, config.num_kv_heads))


def params_of(folder, config: ModelConfig, mesh: MeshConfig = SINGLE):
    """A checkpoint's parameters as a run's learner wants them."""
    return load_params(folder, config, learner_of(config, mesh).abstract().params)
