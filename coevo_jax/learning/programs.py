"""Learners and compiled programs of a run on a mesh, for all of its agents."""

from dataclasses import dataclass, replace
from typing import Any

from jax.sharding import Mesh

from coevo_jax.config.judge import Read
from coevo_jax.config.options import Config, OptimizerConfig
from coevo_jax.config.recipe import LearnOptions
from coevo_jax.config.recipe_queries import judgings_of, lead_of, learnings_of
from coevo_jax.learning.adapt_step import AdaptStep, jit_adapt_step
from coevo_jax.learning.agent_loss import agent_losses
from coevo_jax.learning.judge import Judging, make_judging
from coevo_jax.learning.mixed_step import NO_PAIRS, Mixing, jit_entropies, jit_mixed_step
from coevo_jax.learning.objective import AgentLoss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import Learner, make_learner
from coevo_jax.learning.train_step import ScoreStep, StepPrograms, jit_score, jit_step, jit_token_score
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.lora import plain
from coevo_jax.models.transformer import Transformer
from coevo_jax.sharding import kept


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The learners, losses and compiled programs of all agents; it holds no memory on a device."""

    mesh: Mesh
    learner: Learner  # of all agents in the rounds
    losses: dict[str, AgentLoss]  # per agent that learns
    programs: dict[str, StepPrograms]  # per agent that learns; the same where their losses agree
    warm_learner: Learner  # of the warm start, which may train all parameters where agents have adapters
    warm_programs: StepPrograms
    score: ScoreStep
    token_score: ScoreStep
    mixed: dict[Mixing, StepPrograms]  # of learnings with a weak model beside the policy
    entropies: ScoreStep  # mean entropies of views
    adapt: AdaptStep  # of evaluations whose agent learns from its test episodes
    judging: Judging | None  # None where the recipe has no discriminator


def make_learning(config: Config, vocab_size: int, mesh: Mesh) -> Learning:
    """Learners and programs of a run on a mesh, which may be that of a machine that is only compiled for.

    Runs of a process that differ in nothing that a program depends on share it: the second compiles nothing.
    """
    attention = choose_attention(config.model, mesh)
    learner = learner_of(Transformer(config.model, vocab_size, attention), config.optimizer, mesh)
    losses = agent_losses(config)
    # Without pairs, any loss does; demonstrations are not reinforced, so their batches have other arrays.
    warm_loss = replace(losses.get(lead_of(config.recipe), NO_PAIRS), surrogate=None)
    programs = {loss: _programs(learner, loss, mesh) for loss in dict.fromkeys([warm_loss, *losses.values()])}
    warm_learner, warm_programs = learner, programs[warm_loss]
    if config.model.lora is not None and config.model.lora.warm_start == "full":
        warm_learner = learner_of(plain(learner.model), config.optimizer, mesh)
        warm_programs = _programs(warm_learner, warm_loss, mesh)
    mixings = {mixing_of(one) for one in learnings_of(config.recipe) if one.beside is not None}
    clip_norm = config.optimizer.clip_norm
    alone = programs[warm_loss]
    return Learning(
        mesh=mesh,
        learner=learner,
        losses=losses,
        programs={agent: programs[loss] for agent, loss in losses.items()},
        warm_learner=warm_learner,
        warm_programs=warm_programs,
        **_scores(learner, mesh),
        mixed={one: _mixed(learner, alone, one, clip_norm, mesh) for one in mixings},
        judging=_judging(config, learner, alone, mesh),
    )


def _judging(config: Config, learner: Learner, alone: StepPrograms, mesh: Mesh) -> Judging | None:
    if not judgings_of(config.recipe):
        return None
    return _cached_judging(learner, alone, mesh, config.judge.read)


def mixing_of(learning: LearnOptions) -> Mixing:
    """How a learning with a weak model beside the policy mixes the two."""
    assert learning.beside is not None
    return Mixing(mix=learning.beside.mix, train_weak=learning.beside.train_weak)


@kept(4)
def learner_of(model: Transformer, optimizer: OptimizerConfig, mesh: Mesh) -> Learner:
    """The learner of a model; the same for the same model, optimizer and mesh."""
    return make_learner(model, make_optimizer(optimizer), mesh)


@kept(4)
def _scores(learner: Learner, mesh: Mesh) -> dict[str, Any]:
    return {
        "score": jit_score(learner.model, mesh, learner.shardings, learner.frozen_shardings),
        "token_score": jit_token_score(learner.model, mesh, learner.shardings, learner.frozen_shardings),
        "entropies": jit_entropies(learner, mesh),
        "adapt": jit_adapt_step(learner, mesh),
    }


def token_score_of(learner: Learner, mesh: Mesh) -> ScoreStep:
    """The compiled log-probabilities of single tokens under a learner's parameters; see `jit_token_score`."""
    return _scores(learner, mesh)["token_score"]


_mixed = kept(4)(jit_mixed_step)


@kept(2)
def _cached_judging(learner: Learner, alone: StepPrograms, mesh: Mesh, read: Read) -> Judging:
    return make_judging(learner, alone, mesh, read=read)


@kept(16)
def _programs(learner: Learner, loss: AgentLoss, mesh: Mesh) -> StepPrograms:
    return jit_step(learner.model, learner.optimizer, loss, mesh, learner.shardings, learner.frozen_shardings)
