"""Servers that write a run's explorations: what they are asked before it, and each phase's weights."""

import shutil
import uuid
from dataclasses import replace

import numpy as np

from coevo_jax.config.options import Config, ServerConfig
from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.learning.programs import token_score_of
from coevo_jax.learning.train_state import Agents, Learner
from coevo_jax.models.huggingface.save import check_exportable
from coevo_jax.models.transformer import Params
from coevo_jax.phases.agent_folder import write_agent
from coevo_jax.phases.agents import StoredAgent
from coevo_jax.phases.arrived import check_arrived, differences, prompts_of
from coevo_jax.phases.loading import LOADERS, NUMBER, Loading, form_of, require_paths
from coevo_jax.phases.world import World
from coevo_jax.rollout.endpoint import Endpoint, Served, base_model, probe
from coevo_jax.run_folder.run import Run

FOLDER = "served"  # of a run: what its servers have loaded, by agent
CHECK_SECONDS = 20.0  # a server that is up lists its models in much less
SAMPLE = 16  # tokens of the probe's prompt


def endpoint_of(server: ServerConfig, agent: str) -> Endpoint:
    """The address of the server that plays an agent."""
    return Endpoint(url=server.urls.get(agent, server.url), timeout=server.timeout)


def check_server(config: Config) -> None:
    """Ask the run's servers, where it has any, for what a roll-out needs; writes nothing.

    Raises:
      ConfigError: one is not there, its context is too short, it returns no token ids or logprobs, or it has
        no path by which it could be made to load weights.
    """
    server = config.rollout.server
    if server is None:
        return
    check_exportable(config.model)
    for endpoint in dict.fromkeys(endpoint_of(server, agent) for agent in agents_of(config.recipe)):
        quick = replace(endpoint, timeout=CHECK_SECONDS)
        found = base_model(quick, config.rollout.max_tokens, once=True)
        require_paths(quick, server.load)
        patient = replace(found, endpoint=endpoint)  # a first text may take a while to compile for
        probe(patient, range(SAMPLE), vocab_size=config.model.vocab_size, once=True)


def prove_servers(run: Run, world: World, agents: Agents) -> None:
    """Let every server of the run load what the warm start begins with, and write with it.

    What cannot work later, such as a rank that is too high or another base, is known before anything is
    learned.

    Raises:
      ConfigError: as `serve`.
    """
    server = run.config.rollout.server
    if server is None:
        return
    lead, *others = agents_of(run.config.recipe)
    state, seen = agents[lead], set[Endpoint]()
    for agent in (lead, *others):
        if (endpoint := endpoint_of(server, agent)) not in seen:
            seen.add(endpoint)
            _serve(run, world, world.warm_learner, agent, state.params, agents.frozen)


def serve(run: Run, world: World, agents: Agents, agent: str) -> Served:
    """Let an agent's server load the agent's current weights, and see that it writes with them.

    Raises:
      ConfigError: the server cannot be reached, refuses the weights, does not answer as it should, or writes
        with other weights than these.
    """
    return _serve(run, world, world.learner, agent, agents[agent].params, agents.frozen)


def _serve(run: Run, world: World, learner: Learner, agent: str, params: Params, frozen: Params) -> Served:
    config, server = run.config, run.config.rollout.server
    assert server is not None  # `build_world` made no ServerEngine otherwise
    loader, endpoint = LOADERS[server.load], endpoint_of(server, agent)
    # A name of its own every time: vLLM's prefix cache goes by the adapter's name, not by its weights.
    folder = run.folder.resolve() / FOLDER / f"{agent}-{uuid.uuid4().hex[:NUMBER]}"
    folder.parent.mkdir(exist_ok=True)
    stored = StoredAgent(checkpoint=run.manifest.checkpoint or 0, params=params, frozen=frozen)
    form = form_of(server.load, config.model.tie_embeddings)
    write_agent(run.folder, config, stored, folder, form=form, dtype=loader.dtype or config.model.dtype)
    longest = config.rollout.max_tokens
    served = loader.load(
        Loading(endpoint=endpoint, folder=folder, prefix=f"{config.name}-{agent}-", longest=longest)
    )
    vocab_size = learner.model.vocab_size
    probe(served, range(min(SAMPLE, vocab_size)), vocab_size=vocab_size)
    apart = differences(
        served,
        prompts_of(world.experts, longest) or [np.arange(min(SAMPLE, vocab_size))],
        config=config,
        pad_id=world.chat.pad_id,
        vocab_size=vocab_size,
        score=lambda batch: token_score_of(learner, world.mesh)(params, frozen, batch),
    )
    check_arrived(served, apart, config=config, folder=folder)
    for old in folder.parent.glob(f"{agent}-*"):
        if old != folder:
            shutil.rmtree(old)
    return served
