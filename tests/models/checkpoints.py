"""Checkpoint folders of the families in `tests.models.families`, made and read without PyTorch."""

import flax.linen as nn
import jax

from coevo_jax.architectures import read_architecture
from coevo_jax.config import MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.huggingface.save import save_params
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.sharding import make_mesh
from coevo_jax.strict import validate
from tests.models.families import FAMILIES

SINGLE = MeshConfig()


def config_of(folder, **options) -> ModelConfig:
    """The options of `model` for a checkpoint folder."""
    return validate(ModelConfig, {"path": str(folder), **read_architecture(folder), **options}, "test")


def write_checkpoint(name, folder, *, dtype="float32", shard_bytes=60_000):
    """A folder with config.json and random weights of a family; returns its config and the parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    FAMILIES[name]().save_pretrained(folder)
    config = config_of(folder)
    params = nn.unbox(init_params(Transformer(config, config.vocab_size), jax.random.key(0)))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype).astype("float32"), params)
    save_params(folder, params, config, dtype=dtype, shard_bytes=shard_bytes)
    return config, params


def learner_of(config: ModelConfig, mesh: MeshConfig = SINGLE):
    model = Transformer(config, config.vocab_size)
    return make_learner(model, make_optimizer(OptimizerConfig()), make_mesh(mesh))


def params_of(folder, config: ModelConfig, mesh: MeshConfig = SINGLE):
    """A checkpoint's parameters as a run's learner wants them."""
    return load_params(folder, config, learner_of(config, mesh).abstract().params)
