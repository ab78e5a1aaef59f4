"""Every program of a run, lowered with the shapes and placements that it has there, and what lies beside it.

Nothing here holds an array: arguments are ShapeDtypeStructs that carry NamedShardings, so a program can be
compiled for a machine that is not at hand.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch, TokenBatch
from coevo_jax.config import BatchConfig, Config
from coevo_jax.data.chat import chat_format
from coevo_jax.data.tokenizer import load_tokenizer
from coevo_jax.learning.train_state import Learner, TrainState
from coevo_jax.learning.train_step import StepPrograms, batch_shardings
from coevo_jax.models.attention_kinds import OF_PLATFORM
from coevo_jax.preflight.chips import Machine
from coevo_jax.rollout.placement import RolloutPlacement, place_rollouts
from coevo_jax.sampling.action_line import never_stop
from coevo_jax.sampling.decode import Prefill, Weights, init_state
from coevo_jax.sampling.draw import filters
from coevo_jax.sampling.engine import CHUNKS, cache_lengths, default_prefill_rows
from coevo_jax.sampling.programs import jit_engine
from coevo_jax.sharding import host_mesh, make_mesh
from coevo_jax.strict import ConfigError
from coevo_jax.world import Learning, make_learning, tokenizer_folder

Tree = Any  # of ShapeDtypeStructs

# The warm start where it is the reference: restored, with its moments, to be scored.
REFERENCE = ("reference: parameters", "reference: Adam's moments")


@dataclass(frozen=True, kw_only=True)
class Program:
    """One compiled program of a phase."""

    name: str
    work: str  # which of costs.WORK it does
    lower: Callable[[], jax.stages.Lowered]
    holds: tuple[str, ...]  # the phase's resident groups that are among its arguments
    yields: tuple[str, ...] = ()  # those that are its results, where they are not updated in place
    frees: tuple[str, ...] = ()  # those that do not exist yet or any more while it runs
    trained: str = ""  # "adapters" or "all": what a step differentiates
    compiled_as: str = ""  # programs of one such name are the same; "": there is no other


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the run with what is resident in it, by name, and its programs."""

    name: str
    resident: Mapping[str, Tree]
    programs: tuple[Program, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is compiled for a run on a machine."""

    config: Config
    machine: Machine
    vocab_size: int
    learning: Learning
    rollouts: RolloutPlacement
    phases: tuple[Phase, ...]
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
    mesh = make_mesh(config.mesh, machine.devices)
    if config.model.attention == "auto":  # a stand-in compiles what would run on the machine itself
        attention: Any = OF_PLATFORM.get(machine.platform, "dense")
        if "sliding" in config.model.layer_types and attention == "flash":
            attention = "dense"
        config = config.model_copy(update={"model": config.model.model_copy(update={"attention": attention})})
    vocab_size = vocabulary(config)
    learning = make_learning(config, vocab_size, mesh)
    own = Mesh(np.asarray(machine.host[: len(mesh.devices.flat)]), ("all",))
    local = host_mesh(own, config.rollout.tensor)
    rollouts = place_rollouts(learning.learner, config.rollout, mesh, local)
    rows = default_prefill_rows(machine.platform, config.rollout.slots)
    groups = _Groups(config, learning, rollouts, rows)
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


def bytes_per_device(tree: Tree) -> int:
    """Bytes of a tree's arrays on one device."""
    return sum(array_bytes(leaf) for leaf in jax.tree.leaves(tree))


def array_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
    size = 1
    for dim in shape:
        size *= dim
    return size * leaf.dtype.itemsize


@dataclass(frozen=True)
class _Groups:
    """Abstract arrays of a run by group, and the phases that hold them."""

    config: Config
    run: Learning
    placement: RolloutPlacement
    prefill_rows: int

    def warm_start(self) -> Phase:
        learner = self.run.warm_learner
        resident = self._agent("target", learner) | self._base(learner) | {"short slots": self._slots(0)}
        programs, demonstrations = self.run.warm_programs, self.config.batch.step_demonstrations
        steps = self._steps(
            "SFT", "target", programs, learner, accumulated=demonstrations is not None, resident=resident
        )
        return Phase(name="warm start", resident=resident, programs=tuple(steps))

    def roll_outs(self) -> Phase:
        resident = self._both_agents()
        own = tuple(resident)
        engine = jit_engine(self.run.learner.model, self.config.rollout.slots, self.placement.slots)
        lengths = cache_lengths(self.config.rollout.max_tokens)
        copy, slots = self._copy(), self._slots(lengths[-1])
        weights = Weights(copy)
        played = ("roll-out copy", "slots (KV cache)")
        resident |= dict(zip(played, (copy, slots), strict=True))
        if self._two_lanes():  # the agents of a round explore side by side
            resident |= {f"second agent: {name}": resident[name] for name in played}
        agent = self.run.learner.abstract()
        base = self.run.learner.abstract_frozen() if self.run.learner.frozen_shardings else {}
        programs = [
            Program(
                name="roll-out copy",
                work="none",
                lower=lambda: _lower(self.placement.cast, agent.params, base),
                holds=tuple(name for name in own if name in ("target: parameters", "frozen base")),
                frees=("slots (KV cache)",),
            ),
            Program(
                name="prefill",
                work="prefill",
                lower=lambda: engine.prefill.lower(weights, slots, self._prefill_arguments()),
                holds=played,
            ),
            Program(
                name="decode",
                work="decode",
                lower=lambda: engine.decode.lower(weights, slots, *self._decode_arguments()),
                holds=played,
            ),
        ]
        if len(lengths) > 1:
            shorter = self._slots(lengths[-2])
            programs.append(
                Program(
                    name="lengthen slots",
                    work="none",
                    lower=lambda: engine.grow.lower(shorter, lengths[-1]),
                    holds=(),
                    yields=("slots (KV cache)",),
                )
            )
        return Phase(name="roll-outs", resident=resident, programs=tuple(programs))

    def _two_lanes(self) -> bool:
        """Whether two agents with parameters of their own play at a time; adapters share one batch."""
        config = self.config
        together = config.rounds > 0 and config.failure.explore and config.explore.together
        return together and not self.run.learner.frozen_shardings

    def learning_phase(self) -> Phase:
        learner, batch = self.run.learner, abstract_batch(self.config.batch, self.run.mesh)
        resident = self._both_agents() | {"short slots": self._slots(0)}
        agent, base = learner.abstract(), learner.abstract_frozen() if learner.frozen_shardings else {}
        programs = [
            Program(
                name="reference scoring",
                work="score",
                lower=lambda: _lower(self.run.score, agent.params, base, batch),
                holds=("target: parameters", "frozen base"),
                frees=("gradients",),
            )
        ]
        agents = [("target", self.config.target)]
        if self.config.failure.explore and self.config.failure.learn:
            agents.append(("failure", self.config.failure))
        done: list[StepPrograms] = []
        for name, _ in agents:
            own = self.run.programs[name]
            if own not in done:
                accumulated = self.config.batch.step_pairs is not None
                title = "DPO" if self.run.programs["target"] is own else "failure's DPO"
                programs += self._steps(title, name, own, learner, accumulated=accumulated, resident=resident)
                done.append(own)
        if any(options.reference == "warm_start" for _, options in agents):
            resident |= dict(zip(REFERENCE, (agent.params, agent.opt_state), strict=True))
        return Phase(name="learning", resident=resident, programs=tuple(programs))

    def _steps(
        self,
        title: str,
        agent: str,
        programs: StepPrograms,
        learner: Learner,
        *,
        accumulated: bool,
        resident: dict[str, Tree],
    ) -> Iterator[Program]:
        """The programs of an optimizer step: of one microbatch, or of several that add up their gradients."""
        state = learner.abstract()
        base = learner.abstract_frozen() if learner.frozen_shardings else {}
        batch, scalar = abstract_batch(self.config.batch, self.run.mesh), _array(jnp.float32)
        names = {"parameters": f"{agent}: parameters", "moments": f"{agent}: Adam's moments"}
        held = (names["parameters"], "frozen base")
        trained = "adapters" if learner.frozen_shardings else "all"
        # Demonstrations and pairs are batches of one form, and agents with one loss share its programs.
        make = partial(Program, trained=trained, frees=REFERENCE)
        shared = f"{trained} {id(programs)}"
        if not accumulated:
            yield make(
                name=f"{title} step",
                work="train",
                compiled_as=f"whole {shared}",
                lower=lambda: programs.whole.lower(state, base, batch, scalar, scalar),
                holds=(*held, names["moments"]),
            )
            return
        resident["gradients"] = state.params
        if programs.coupled:
            views = self.config.batch.rows * self.config.batch.views_per_row
            d_logps = _array(jnp.float32, views)
            yield make(
                name=f"{title} logps",
                work="score",
                lower=lambda: programs.score.lower(state.params, base, batch),
                holds=held,
                frees=("gradients", *REFERENCE),
            )
            yield make(
                name=f"{title} microbatch",
                work="train",
                compiled_as=f"pull {shared}",
                lower=lambda: programs.pull.lower(state.params, state.params, base, batch, d_logps),
                holds=(*held, "gradients"),
            )
        else:
            yield make(
                name=f"{title} microbatch",
                work="train",
                compiled_as=f"accumulate {shared}",
                lower=lambda: programs.accumulate.lower(state.params, state.params, base, batch, scalar),
                holds=(*held, "gradients"),
            )
        yield make(
            name=f"{title} update",
            work="update",
            compiled_as=f"apply {shared}",
            lower=lambda: programs.apply.lower(state, state.params, scalar),
            holds=(names["parameters"], names["moments"], "gradients"),
        )

    def _both_agents(self) -> dict[str, Tree]:
        resident = self._agent("target", self.run.learner)
        if self.config.failure.explore and self.config.rounds > 0:
            resident |= self._agent("failure", self.run.learner)
        return resident | self._base(self.run.learner)

    def _agent(self, name: str, learner: Learner) -> dict[str, Tree]:
        state: TrainState = learner.abstract()
        return {f"{name}: parameters": state.params, f"{name}: Adam's moments": state.opt_state}

    def _base(self, learner: Learner) -> dict[str, Tree]:
        return {"frozen base": learner.abstract_frozen()} if learner.frozen_shardings else {}

    def _copy(self) -> Tree:
        shapes = jax.eval_shape(
            lambda params, frozen: self.placement.cast(params, frozen),
            self.run.learner.abstract().params,
            self.run.learner.abstract_frozen() if self.run.learner.frozen_shardings else {},
        )
        return _placed(shapes, self.placement.params)

    def _slots(self, length: int) -> Tree:
        """The engine's state at a length of its slots; 0 is the one that it starts with."""
        rollout, model = self.config.rollout, self.run.learner.model
        length = length or cache_lengths(rollout.max_tokens)[0]
        make = partial(init_state, model.config, model.vocab_size, rollout.slots, length)
        return _placed(jax.eval_shape(make), self.placement.slots)

    def _prefill_arguments(self) -> Prefill:
        ids = _array(jnp.int32, self.prefill_rows)
        tokens = _array(jnp.int32, self.prefill_rows, CHUNKS[-1])
        return Prefill(rows=ids, sources=ids, starts=ids, tokens=tokens, valid=ids, agent=ids)

    def _decode_arguments(self) -> tuple[Tree, ...]:
        slots, block = self.config.rollout.slots, self.config.rollout.decode_block
        key, chosen = jax.eval_shape(lambda: (jax.random.key(0), filters(1.0)))
        stop = jax.eval_shape(lambda: jnp.asarray(never_stop()))
        script, ids, number = _array(jnp.int32, slots, block), _array(jnp.uint32, slots, 4), _array(jnp.int32)
        return _array(jnp.int32, slots), script, ids, key, chosen, number, stop, number


def abstract_batch(config: BatchConfig, mesh: Mesh) -> PreferenceBatch:
    """A microbatch whose every token may be scored: pairs and demonstrations have the same arrays."""
    rows, length, views = config.rows, config.row_length, config.rows * config.views_per_row
    ids, floats, pairs = _array(jnp.int32, rows, length), _array(jnp.float32, views), config.pairs
    shapes: Any = PreferenceBatch(
        tokens=TokenBatch(
            tokens=ids,
            positions=ids,
            visible_until=ids,
            source=ids,
            target=ids,
            scored=_array(jnp.int32, rows),
        ),
        view_weight=_array(jnp.float32, rows, config.views_per_row, length),
        reference_logps=floats,
        sft_weight=floats,
        reward=floats,
        token_count=_array(jnp.int32, views),
        chosen=_array(jnp.int32, pairs),
        rejected=_array(jnp.int32, pairs),
        weight=_array(jnp.float32, pairs),
        kind=_array(jnp.int32, pairs),
        step_share=_array(jnp.float32),
    )
    shardings = batch_shardings(mesh)
    tokens = jax.tree.map(lambda _: shardings.tokens, shapes.tokens)
    return _placed(shapes, replace(shardings, tokens=tokens))


def _array(dtype: Any, *shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _placed(shapes: Tree, shardings: Tree) -> Tree:
    def place(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, shapes, shardings)


def _lower(function: Any, *arguments: Tree) -> jax.stages.Lowered:
    return function.lower(*arguments)
