"""What is compiled for a run on a machine: its phases with their programs, and where everything lies."""

from dataclasses import dataclass, field

import numpy as np
from jax.sharding import Mesh

from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.learning.programs import Learning, make_learning
from coevo_jax.machine.chips import Machine
from coevo_jax.phases.world import tokenizer_folder
from coevo_jax.preflight.compiled import CompiledPhase, Programs
from coevo_jax.rollout.placement import RolloutPlacement, place_rollouts
from coevo_jax.sampling.shapes import default_prefill_rows
from coevo_jax.sharding import host_mesh, hosts_of_a_copy, make_mesh


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is compiled for a run on a machine."""

    config: Config
    machine: Machine
    vocab_size: int
    learning: Learning
    rollouts: RolloutPlacement
    phases: tuple[CompiledPhase, ...]
    prefill_rows: int = field(default=1)


def plan_programs(config: Config, machine: Machine) -> Plan:
    """The programs of a run on a machine.

    Raises:
      ConfigError: the mesh does not fit the machine, a rule does not divide a dimension, or the vocabulary is
        not known.
    """
    shape = config.mesh
    devices = shape.data * shape.fsdp * shape.tensor
    if machine.name.partition(":")[2] and devices != len(machine.devices):
        raise ConfigError(
            f"mesh: data x fsdp x tensor = {shape.data} x {shape.fsdp} x {shape.tensor} = {devices} devices, "
            f"but {machine.name} has {len(machine.devices)}"
        )
    mesh = make_mesh(config.mesh, config.model.num_kv_heads, machine.devices)
    if config.model.attention == "auto" and machine.stand_in:  # it cannot compile the machine's kernels
        dense = config.model.model_copy(update={"attention": "dense"})
        config = config.model_copy(update={"model": dense})
    vocab_size = vocabulary(config)
    learning = make_learning(config, vocab_size, mesh)
    tensor = config.rollout.tensor
    hosts_of_a_copy(mesh, tensor)  # refuses what divides neither a host nor the hosts
    own = Mesh(np.asarray(machine.neighbours(tensor)[: len(mesh.devices.flat)]), ("all",))
    local = host_mesh(own, tensor, config.model.num_kv_heads)
    rollouts = place_rollouts(learning.learner, config.rollout, mesh, local)
    rows = default_prefill_rows(machine.platform, config.rollout.slots)
    groups = Programs(config, learning, rollouts, rows)
    phases = [groups.warm_start(), groups.roll_outs()]
    if config.rounds > 0:
        phases.append(groups.learning_phase())
    return Plan(
        config=config,
        machine=machine,
        vocab_size=vocab_size,
        learning=learning,
        rollouts=rollouts,
        phases=tuple(phases),
        prefill_rows=rows,
    )


def vocabulary(config: Config) -> int:
    """Rows of the embedding.

    Raises:
      ConfigError: neither the config nor a tokenizer at hand says.
    """
    if config.model.vocab_size is not None:
        return config.model.vocab_size
    folder = tokenizer_folder(config)
    if folder is None:
        return config.tokenizer.vocab_size
    return chat_format(load_tokenizer(folder)).vocab_size
