"""What a run builds once per process: tasks, experts, model, compiled programs, engine and environments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from coevo_jax.config.check import slice_bounds
from coevo_jax.config.check_hints import operations_of, wordings_of
from coevo_jax.config.check_marks import marks_of
from coevo_jax.config.options import Config
from coevo_jax.config.recipe_queries import adapts, together_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import ChatFormat, chat_format
from coevo_jax.data.chat.marking import cannot_hold
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.interchange.sets import open_set
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.envs.env import Env, EnvFault, LimitsInstances, OffersActions, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.process import isolated
from coevo_jax.envs.registry import make_env
from coevo_jax.learning.agent_loss import agent_losses
from coevo_jax.learning.programs import Learning, make_learning
from coevo_jax.methods.hints import ACTION, TEXT
from coevo_jax.methods.marks import TASK
from coevo_jax.models.attention_kinds import named_attention
from coevo_jax.models.huggingface.shards import check_checkpoint
from coevo_jax.progress import CONSOLE
from coevo_jax.rollout.placement import RolloutPlacement, lanes_of, place_rollouts
from coevo_jax.rollout.server_engine import ServerEngine
from coevo_jax.run_folder.wandb_log import check_wandb
from coevo_jax.sampling.action_line import stop_table
from coevo_jax.sampling.engine import Engine
from coevo_jax.sharding import make_mesh
from coevo_jax.trajectory import Trajectory

EXPERTS_FILE = "trajectories/experts.parquet"
IMPORTED_FILE = "trajectories/imported.parquet"
TOKENIZER_DIR = "tokenizer"
BACKBONE_DIR = "backbone"  # config.json and generation_config.json of the checkpoint a run began with


@dataclass(frozen=True, kw_only=True)
class World(Learning):
    """What a run builds once per process: programs, experts, engine and environments."""

    config: Config
    chat: ChatFormat
    experts: dict[str, Trajectory]  # by task id: those of the warm start and of the explored tasks
    env: Env  # for task lists; never played
    rollouts: RolloutPlacement
    engine: Engine
    single: Engine | None  # one slot, for an agent that learns from episode to episode; None without one
    server: ServerEngine | None  # explores in the engine's place
    pool: EnvPool

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        self.pool.close()
        self.env.close()


def open_env(config: Config) -> Callable[[], Env]:
    """The environment factory of a config; its options are checked here."""
    return make_env(config.env.name, config.env.options)


def tasks_of(env: Env, split: str, where: str, key: str) -> Sequence[Task]:
    """The tasks that a slice like "300:900" of a split names.

    Raises:
      ConfigError: the slice selects nothing.
    """
    tasks = env.tasks(split)
    start, stop = slice_bounds(where)
    selected = tasks[start:stop]
    if not selected:
        raise ConfigError(
            f"{key}: {where!r} selects none of the {len(tasks)} tasks of {env.name}'s {split} split"
        )
    return selected


def check_world(config: Config) -> None:
    """Check what the schema cannot: environment, tokenizer, losses, devices and logger; writes nothing.

    Raises:
      ConfigError: the first thing that cannot be used.
    """
    check_wandb(config)
    agent_losses(config)
    make_mesh(config.mesh, config.model.num_kv_heads)
    env = open_env(config)()
    try:
        _check_choices(config, env)
    finally:
        env.close()
    if config.warm_start.data is not None:
        open_set(config.warm_start.data)
    check_backbone(config)


def _check_choices(config: Config, env: Env) -> None:
    """Refuse distortions that need what an environment does not say."""
    for where, operations in operations_of(config).items() if config.rounds else ():
        if set(operations) == {"other_choice"} and not isinstance(env, OffersActions):
            raise ConfigError(
                f"{where}: found other_choice alone, but {env.name} does not say which actions its answers "
                "list, so that nothing would be distorted; expected other operations beside it"
            )


def tokenizer_folder(config: Config) -> Path | None:
    """The folder of the tokenizer that a run is to use; None where the run trains its own."""
    folder = config.tokenizer.path or config.model.path
    return None if folder is None else Path(folder)


def check_backbone(config: Config) -> None:
    """Read headers of what a run begins with: tokenizer, chat template, and every tensor's name and shape.

    Raises:
      ConfigError: the first file that cannot be used, a tokenizer that does not belong to the embedding, or a
        mark that its chat format cannot hold.
    """
    folder = tokenizer_folder(config)
    if folder is not None:
        chat = chat_format(load_tokenizer(folder))
        embedded_tokens(config, chat)
        check_held(config, chat)
    if config.model.path is not None and config.model.vocab_size is not None:
        check_checkpoint(Path(config.model.path), config.model, config.model.vocab_size)


def check_held(config: Config, chat: ChatFormat) -> None:
    """Check that the chat format can hold every mark and every wording of suggestions of the recipe.

    Raises:
      ConfigError: the first that it cannot hold, and why.
    """
    held = {mark: (where, mark) for mark, where in marks_of(config).items()}
    for wording, where in wordings_of(config).items():
        held.setdefault(wording.replace(TEXT, TASK).replace(ACTION, "go"), (where, wording))
    for mark, (where, text) in held.items() if config.rounds else ():
        if why := cannot_hold(chat, mark):
            raise ConfigError(f"{where}: the chat format cannot hold {text!r}: {why}")


def embedded_tokens(config: Config, chat: ChatFormat) -> int:
    """The rows of the embedding: the checkpoint's own, maybe more than its tokenizer has, or the tokenizer's.

    A tokenizer may have control tokens beyond them that nothing can write, as Gemma 3's for images.

    Raises:
      ConfigError: the embedding has no row for a token that can be written.
    """
    rows = config.model.vocab_size
    if rows is not None and chat.vocab_size > rows and (beyond := chat.ids_from(rows)):
        raise ConfigError(
            f"{tokenizer_folder(config)}: the tokenizer has {chat.vocab_size} tokens, the embedding of "
            f"{config.model.path} only {rows} rows (model.vocab_size), and "
            f"{chat.tokenizer.convert_ids_to_tokens(beyond[0])!r} is token {beyond[0]}; expected the "
            "tokenizer it was trained with"
        )
    return chat.vocab_size if rows is None else rows


def longest_trajectory(config: Config) -> int:
    """The most tokens of a trajectory that can be learned from: a row's, within the model's context."""
    longest = config.model.max_positions
    return config.batch.row_length if longest is None else min(config.batch.row_length, longest)


def build_world(config: Config, folder: Path) -> World:
    """Build what the phases after `prepare` share; `folder` holds the prepared tokenizer and experts."""
    make = open_env(config)
    env = make()
    chat = chat_format(load_tokenizer(folder / TOKENIZER_DIR))
    mesh = make_mesh(config.mesh, config.model.num_kv_heads)
    learning = make_learning(config, embedded_tokens(config, chat), mesh)
    _say_attention(config, mesh)
    rollouts = place_rollouts(learning.learner, config.rollout, mesh)
    model, stop = learning.learner.model, stop_table_of(config, chat)

    def make_engine(slots: int) -> Engine:
        options = config.rollout.model_copy(update={"slots": slots})
        lanes = lanes_of(rollouts, slots)
        return Engine(model, options, chat.end_id, sharding=rollouts.slots, lanes=lanes, stop=stop)

    return World(
        **vars(learning),
        config=config,
        chat=chat,
        experts={expert.task_id: expert for expert in read_trajectories([folder / EXPERTS_FILE])},
        env=env,
        rollouts=rollouts,
        engine=make_engine(config.rollout.slots),
        single=make_engine(1) if adapts(config.recipe) else None,
        server=None
        if config.rollout.server is None
        else ServerEngine(
            config.rollout.model_copy(update={"joining": "as_ready"}),
            end_id=chat.end_id,
            vocab_size=model.vocab_size,
            stop=stop,
        ),
        pool=_pool(config, make, env),
    )


def _say_attention(config: Config, mesh: Mesh) -> None:
    """Say what "auto" takes on an accelerator, and why not its kernels, where it does not."""
    device = mesh.devices.flat[0]
    if config.model.attention == "auto" and device.platform != "cpu":
        name, reason = named_attention(config.model, device)
        CONSOLE.print(f"attention: {name}{f', for {reason}' if reason else ''}", soft_wrap=True)


def _pool(config: Config, make: Callable[[], Env], listed: Env) -> EnvPool:
    env = config.env
    played = isolated(make, env.process_memory_mib) if env.processes else make
    most = _most_instances(config, listed)
    return EnvPool(played, workers=env.workers, step_timeout=env.step_timeout, most=most)


def _most_instances(config: Config, env: Env) -> int | None:
    """How many instances can play at a time; None where nothing limits them to fewer than the slots.

    Raises:
      ConfigError: not even one can.
    """
    if not isinstance(env, LimitsInstances):
        return None
    wanted = config.rollout.slots * max(1, len(together_of(config.recipe)) if config.explore.together else 1)
    try:
        most = env.most_instances(wanted)
    except EnvFault as fault:
        raise ConfigError(f"{env.name}: {fault}") from None
    if most == 0:
        raise ConfigError(f"{env.name}: found no place for an instance, expected one at least")
    if most >= wanted:
        return None
    CONSOLE.print(
        f"{env.name}: {most} instances can play at a time; of {wanted} slots, {most} are used", soft_wrap=True
    )
    return most


def stop_table_of(config: Config, chat: ChatFormat) -> np.ndarray | None:
    """Where the tokens of a turn lead, if it is to stop at the end of its action's line."""
    if not config.rollout.stop_at_action_line:
        return None
    return stop_table([chat.text_of([token]) for token in range(chat.vocab_size)])
