"""Every program of a run, lowered with the shapes and placements that it has there, and what lies beside it.

Nothing here holds an array: arguments are ShapeDtypeStructs that carry NamedShardings, so a program can be
compiled for a machine that is not at hand.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp

from coevo_jax.config.judge import JUDGE
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import LearnOptions
from coevo_jax.config.recipe_queries import agents_of, learners_of, learnings_of, together_of
from coevo_jax.config.reinforced import tied
from coevo_jax.learning.mixed_step import Beside, BothStates
from coevo_jax.learning.programs import Learning, mixing_of
from coevo_jax.learning.train_state import Learner, TrainState
from coevo_jax.learning.train_step import StepPrograms
from coevo_jax.models.kv_cache import join_adapters, unstack
from coevo_jax.preflight.arrays import Tree, abstract_batch, array, placed
from coevo_jax.rollout.placement import RolloutPlacement, lanes_of
from coevo_jax.sampling.action_line import never_stop
from coevo_jax.sampling.decode import Prefill, Weights, init_state
from coevo_jax.sampling.draw import filters
from coevo_jax.sampling.engine_programs import EnginePrograms, jit_engine
from coevo_jax.sampling.shapes import CHUNKS, cache_lengths
from coevo_jax.sharding import replicated

# The warm start where it is the reference: restored, with its moments, to be scored.
REFERENCE = ("reference: parameters", "reference: Adam's moments")
WEAK_MODEL = ("weak model: parameters", "weak model: Adam's moments")  # beside an agent that imitates
# What each agent that plays by itself has: its weights, its slots, and the beginning that its prompts share.
LANE = COPY, SLOTS, PREFIX = "roll-out copy", "slots (KV cache)", "kept prefix"


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
    playing: bool = False  # on the devices that hold a roll-out copy, whatever the machine around them


@dataclass(frozen=True, kw_only=True)
class CompiledPhase:
    """A part of the run with what is resident in it, by name, and its programs."""

    name: str
    resident: Mapping[str, Tree]
    programs: tuple[Program, ...]


@dataclass(frozen=True)
class Programs:
    """Abstract arrays of a run by group, and the phases that hold them."""

    config: Config
    run: Learning
    placement: RolloutPlacement
    prefill_rows: int

    @property
    def lanes(self) -> int:
        """Engines that share an agent's slots."""
        return lanes_of(self.placement, self.config.rollout.slots)

    @property
    def lane_slots(self) -> int:
        return self.config.rollout.slots // self.lanes

    def warm_start(self) -> CompiledPhase:
        learner = self.run.warm_learner
        resident = self._agent(self.agents[0], learner) | self._base(learner)
        resident |= {"short slots": self._slots(0)}
        programs, demonstrations = self.run.warm_programs, self.config.batch.step_demonstrations
        steps = self._steps(
            "SFT",
            self.agents[0],
            programs,
            learner,
            accumulated=demonstrations is not None,
            resident=resident,
        )
        return CompiledPhase(name="warm start", resident=resident, programs=tuple(steps))

    def roll_outs(self) -> CompiledPhase:
        resident = self._all_agents()
        engine = jit_engine(self.run.learner.model, self.lane_slots, self.placement.slots)
        lengths = cache_lengths(self.config.rollout.max_tokens)
        beside = self._side_by_side()
        weights, slots, slot = self._copy(beside), self._slots(lengths[-1]), array(jnp.int32)
        cache = self.placement.slots.cache
        prefix = placed(jax.eval_shape(engine.take, slots, slot), cache)  # at most: a whole slot of it
        lane = dict(zip(LANE, (weights, slots, prefix), strict=True))
        if beside > 1 and self.run.learner.frozen_shardings:
            lane[PREFIX] = (
                prefix,
            ) * beside  # adapters share the slots, and each has the prefix as it sees it
        apart = 1 if self.run.learner.frozen_shardings else beside
        for who, number in product(range(1, apart + 1), range(1, self.lanes + 1)):
            words = f"agent {who}: " * (who > 1) + f"lane {number}: " * (number > 1)
            own = lane if number == 1 else {name: lane[name] for name in (SLOTS, PREFIX)}
            resident |= {f"{words}{name}": tree for name, tree in own.items()}
        agent = self.run.learner.abstract()
        base = self.run.learner.abstract_frozen() if self.run.learner.frozen_shardings else {}
        make = partial(Program, playing=True, holds=(COPY, SLOTS))
        move = partial(Program, playing=True, work="none")
        programs = [
            Program(
                name="roll-out copy",
                work="none",
                lower=lambda: _lower(self.placement.cast, base or agent.params),
                holds=("frozen base" if base else f"{self.agents[0]}: parameters",),
                frees=(SLOTS, PREFIX),
            ),
            make(name="prefill", work="prefill", lower=lambda: self._prefill(engine, weights, slots)),
            make(name="decode", work="decode", lower=lambda: self._decode(engine, weights, slots)),
            move(
                name="keep prefix",
                lower=lambda: engine.take.lower(slots, slot),
                holds=(SLOTS,),
                yields=(PREFIX,),
            ),
            move(
                name="put prefix",
                lower=lambda: engine.put.lower(slots, prefix, slot),
                holds=(SLOTS, PREFIX),
            ),
        ]
        if len(lengths) > 1:
            shorter = self._slots(lengths[-2])
            programs.append(
                move(
                    name="lengthen slots",
                    lower=lambda: engine.grow.lower(shorter, lengths[-1]),
                    holds=(),
                    yields=(SLOTS,),
                )
            )
        return CompiledPhase(name="roll-outs", resident=resident, programs=tuple(programs))

    @property
    def agents(self) -> tuple[str, ...]:
        return agents_of(self.config.recipe)

    def _side_by_side(self) -> int:
        """How many agents play at a time."""
        config = self.config
        together = config.rounds > 0 and config.explore.together
        return max(1, len(together_of(config.recipe))) if together else 1

    def learning_phase(self) -> CompiledPhase:
        learner, batch = self.run.learner, abstract_batch(self.config.batch, self.run.mesh)
        resident = self._all_agents() | {"short slots": self._slots(0)}
        agent, base = learner.abstract(), learner.abstract_frozen() if learner.frozen_shardings else {}
        learners = learners_of(self.config.recipe)
        tied_tokens = any(tied(self.config, name) for name in learners)
        reads = tied_tokens or any(one.pairs or one.imitations for one in learnings_of(self.config.recipe))
        score = self.run.token_score if tied_tokens else self.run.score
        programs = [
            Program(
                name="reference scoring",
                work="score",
                lower=lambda: _lower(score, agent.params, base, batch),
                holds=(f"{self.agents[0]}: parameters", "frozen base"),
                frees=("gradients",),
            )
        ][: int(reads)]
        done: list[StepPrograms] = []
        for name in learners:
            own, learnings = self.run.programs[name], learnings_of(self.config.recipe, name)
            if own not in done and any(one.beside is None for one in learnings):
                pairs = any(one.pairs or one.imitations for one in learnings)
                shape, what = self.config.batch, "DPO" if pairs else "surrogate"
                accumulated = (shape.step_pairs if pairs else shape.step_episodes) is not None
                title = what if name == learners[0] else f"{name}'s {what}"
                programs += self._steps(title, name, own, learner, accumulated=accumulated, resident=resident)
                done.append(own)
        for name in learners:
            for learning in learnings_of(self.config.recipe, name):
                if learning.beside is not None and self.run.mixed[mixing_of(learning)] not in done:
                    programs += self._mixed(name, learning, learner, resident)
                    done.append(self.run.mixed[mixing_of(learning)])
        programs += self._judge(resident)
        if any(self.config.agents[name].reference == "warm_start" for name in learners):
            resident |= dict(zip(REFERENCE, (agent.params, agent.opt_state), strict=True))
        return CompiledPhase(name="learning", resident=resident, programs=tuple(programs))

    def _judge(self, resident: dict[str, Tree]) -> Iterator[Program]:
        """The programs of a discriminator's learning, and of its judging."""
        judging = self.run.judging
        if judging is None:
            return
        learner = judging.learner
        base = learner.abstract_frozen() if learner.frozen_shardings else {}
        batch = abstract_batch(self.config.batch, self.run.mesh, judged=True)
        yield from self._steps(
            "judge",
            JUDGE,
            judging.programs,
            learner,
            accumulated=self.config.batch.step_episodes is not None,
            resident=resident,
            batch=batch,
        )
        yield Program(
            name="judging",
            work="score",
            lower=lambda: _lower(judging.logits, learner.abstract().params, base, batch),
            holds=(f"{JUDGE}: parameters", "frozen base"),
            frees=("gradients", *REFERENCE),
        )

    def _mixed(
        self, name: str, learning: LearnOptions, learner: Learner, resident: dict[str, Tree]
    ) -> Iterator[Program]:
        """The programs of a learning with a weak model beside the agent, which stays in memory meanwhile."""
        agent, base = learner.abstract(), learner.abstract_frozen() if learner.frozen_shardings else {}
        mixing = mixing_of(learning)
        batch = abstract_batch(self.config.batch, self.run.mesh)
        resident |= {WEAK_MODEL[0]: agent.params}
        state, beside = agent, Beside(base=base, weak=agent.params)
        if mixing.train_weak:
            resident |= {WEAK_MODEL[1]: agent.opt_state}
            state, beside = BothStates(strong=agent, weak=agent), Beside(base=base, weak={})
        yield Program(
            name="entropies",
            work="score",
            lower=lambda: _lower(self.run.entropies, agent.params, base, batch),
            holds=(f"{name}: parameters", "frozen base"),
            frees=("gradients", WEAK_MODEL[1]),
        )
        yield from self._steps(
            "mixed",
            name,
            self.run.mixed[mixing],
            learner,
            accumulated=self.config.batch.step_demonstrations is not None,
            resident=resident,
            arguments=(state, beside),
        )

    def _steps(
        self,
        title: str,
        agent: str,
        programs: StepPrograms,
        learner: Learner,
        *,
        accumulated: bool,
        resident: dict[str, Tree],
        arguments: tuple[Any, Any] | None = None,
        batch: Any = None,
    ) -> Iterator[Program]:
        """The programs of an optimizer step: of one microbatch, or of several that add up their gradients.

        Args:
          arguments: the state and what is frozen, with a weak model beside the agent's.
          batch: of another form than the agent's.
        """
        state: Any = learner.abstract()
        base: Any = learner.abstract_frozen() if learner.frozen_shardings else {}
        work, weak = "train", ()
        if arguments is not None:
            state, base = arguments
            both = isinstance(state, BothStates)
            work, weak = "train both" if both else "train beside", WEAK_MODEL[: 2 if both else 1]
        loss = self.run.losses.get(agent)
        surrogate = loss.surrogate if loss is not None and programs is self.run.programs.get(agent) else None
        batch = batch or abstract_batch(self.config.batch, self.run.mesh, surrogate)
        scalar = array(jnp.float32)
        names = {"parameters": f"{agent}: parameters", "moments": f"{agent}: Adam's moments"}
        held = (names["parameters"], "frozen base", *weak[:1])
        trained = "adapters" if learner.frozen_shardings else "all"
        # Demonstrations and pairs are batches of one form, and agents with one loss share its programs.
        make = partial(Program, trained=trained, frees=REFERENCE)
        shared = f"{trained} {id(programs)}"
        if not accumulated:
            yield make(
                name=f"{title} step",
                work=work,
                compiled_as=f"whole {shared}",
                lower=lambda: programs.whole.lower(state, base, batch, scalar, scalar),
                holds=(*held, names["moments"], *weak[1:]),
            )
            return
        resident["gradients"] = state.params
        if programs.coupled:
            views = self.config.batch.rows * self.config.batch.views_per_row
            d_logps = array(jnp.float32, views)
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
                work=work,
                compiled_as=f"accumulate {shared}",
                lower=lambda: programs.accumulate.lower(state.params, state.params, base, batch, scalar),
                holds=(*held, "gradients"),
            )
        yield make(
            name=f"{title} update",
            work="update both" if len(weak) > 1 else "update",
            compiled_as=f"apply {shared}",
            lower=lambda: programs.apply.lower(state, state.params, scalar),
            holds=(names["parameters"], names["moments"], "gradients", *(weak if len(weak) > 1 else ())),
        )

    def _all_agents(self) -> dict[str, Tree]:
        resident: dict[str, Tree] = {}
        for name in self.agents if self.config.rounds > 0 else self.agents[:1]:
            resident |= self._agent(name, self.run.learner)
        if self.run.judging is not None and self.config.rounds > 0:
            resident |= self._agent(JUDGE, self.run.judging.learner)
        return resident | self._base(self.run.learner)

    def _agent(self, name: str, learner: Learner) -> dict[str, Tree]:
        state: TrainState = learner.abstract()
        return {f"{name}: parameters": state.params, f"{name}: Adam's moments": state.opt_state}

    def _base(self, learner: Learner) -> dict[str, Tree]:
        return {"frozen base": learner.abstract_frozen()} if learner.frozen_shardings else {}

    def _copy(self, beside: int) -> Weights:
        """What agents play on: one's parameters, or a base with the adapters of those that play at a time."""
        learner = self.run.learner
        params = learner.abstract().params
        whole = learner.abstract_frozen() if learner.frozen_shardings else params
        copy = placed(jax.eval_shape(self.placement.cast, whole), self.placement.params)
        if not learner.frozen_shardings:
            return Weights(copy)
        joined = jax.eval_shape(
            lambda params: unstack(join_adapters([params] * beside), learner.model.config), params
        )
        everywhere = jax.tree.map(lambda _: replicated(self.placement.mesh), joined)
        return Weights(copy, placed(joined, everywhere))

    def _slots(self, length: int) -> Tree:
        """The engine's state at a length of its slots; 0 is the one that it starts with."""
        rollout, model = self.config.rollout, self.run.learner.model
        length = length or cache_lengths(rollout.max_tokens)[0]
        make = partial(init_state, model.config, model.vocab_size, self.lane_slots, length)
        return placed(jax.eval_shape(make), self.placement.slots)

    def _prefill(self, engine: EnginePrograms, weights: Weights, slots: Tree) -> jax.stages.Lowered:
        ids = array(jnp.int32, self.prefill_rows)
        tokens = array(jnp.int32, self.prefill_rows, CHUNKS[-1])
        work = Prefill(rows=ids, sources=ids, starts=ids, tokens=tokens, valid=ids, agent=ids)
        return engine.prefill.lower(weights, slots, work)

    def _decode(self, engine: EnginePrograms, weights: Weights, state: Tree) -> jax.stages.Lowered:
        slots, block = self.lane_slots, self.config.rollout.decode_block
        key, chosen = jax.eval_shape(lambda: (jax.random.key(0), filters(1.0)))
        stop = jax.eval_shape(lambda: jnp.asarray(never_stop()))
        budgets, ids, number = array(jnp.int32, slots), array(jnp.uint32, slots, 4), array(jnp.int32)
        script = array(jnp.int32, slots, block)
        return engine.decode.lower(weights, state, budgets, script, ids, key, chosen, number, stop, number)


def _lower(function: Any, *arguments: Tree) -> jax.stages.Lowered:
    return function.lower(*arguments)
