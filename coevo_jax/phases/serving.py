"""The export of an agent's current weights to a folder that a server then loads."""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from coevo_jax.config.options import Config, ServerConfig
from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.train_state import Agents
from coevo_jax.models.huggingface.save import check_exportable
from coevo_jax.phases.agent_folder import write_agent
from coevo_jax.phases.agents import StoredAgent
from coevo_jax.phases.world import World
from coevo_jax.rollout.endpoint import Endpoint, Served, ask, base_model, list_models, probe
from coevo_jax.run_folder.run import Run

FOLDER = "served"  # of a run: what its servers have loaded, by agent
CHECK_SECONDS = 20.0  # a server that is up lists its models in much less
SAMPLE = 16  # tokens of the probe's prompt


@dataclass(frozen=True, kw_only=True)
class _Loading:
    """Weights on their way to a server."""

    endpoint: Endpoint
    folder: Path  # absolute; of the exported agent
    prefix: str  # of the names of this agent's adapters, those of earlier phases too
    longest: int


def endpoint_of(server: ServerConfig, agent: str) -> Endpoint:
    """The address of the server that plays an agent."""
    return Endpoint(url=server.urls.get(agent, server.url), timeout=server.timeout)


def check_server(config: Config) -> None:
    """Ask the run's servers, where it has any, for what a roll-out needs; writes nothing.

    Raises:
      ConfigError: one is not there, its context is too short, or it returns no token ids or logprobs.
    """
    server = config.rollout.server
    if server is None:
        return
    check_exportable(config.model)
    for endpoint in dict.fromkeys(endpoint_of(server, agent) for agent in agents_of(config.recipe)):
        found = base_model(replace(endpoint, timeout=CHECK_SECONDS), config.rollout.max_tokens, once=True)
        patient = replace(found, endpoint=endpoint)  # a first text may take a while to compile for
        probe(patient, range(SAMPLE), vocab_size=config.model.vocab_size, once=True)


def serve(run: Run, world: World, agents: Agents, agent: str) -> Served:
    """Let an agent's server load the agent's current weights.

    Raises:
      ConfigError: the server cannot be reached, refuses the weights, or does not answer as it should.
    """
    server = run.config.rollout.server
    assert server is not None  # `build_world` made no ServerEngine otherwise
    form, dtype, load = LOADERS[server.load]
    endpoint = endpoint_of(server, agent)
    # A name of its own every time: vLLM's prefix cache goes by the adapter's name, not by its weights.
    folder = run.folder.resolve() / FOLDER / f"{agent}-{uuid.uuid4().hex[:12]}"
    folder.parent.mkdir(exist_ok=True)
    stored = StoredAgent(
        checkpoint=run.manifest.checkpoint or 0, params=agents[agent].params, frozen=agents.frozen
    )
    write_agent(run.folder, run.config, stored, folder, form=form, dtype=dtype or run.config.model.dtype)
    served = load(
        _Loading(
            endpoint=endpoint,
            folder=folder,
            prefix=f"{run.config.name}-{agent}-",
            longest=run.config.rollout.max_tokens,
        )
    )
    vocab_size = world.learner.model.vocab_size
    probe(served, range(min(SAMPLE, vocab_size)), vocab_size=vocab_size)
    for old in folder.parent.glob(f"{agent}-*"):
        if old != folder:
            shutil.rmtree(old)
    return served


def _load_adapter(loading: _Loading) -> Served:
    """vLLM's dynamic adapters. Earlier ones of the agent are unloaded: their folders go."""
    endpoint = loading.endpoint
    for model in list_models(endpoint):
        if model.adapter and model.name.startswith(loading.prefix):
            ask(endpoint, "/v1/unload_lora_adapter", {"lora_name": model.name})
    base_model(endpoint, loading.longest)
    name = loading.prefix + loading.folder.name.rpartition("-")[2]
    _post(
        endpoint,
        "/v1/load_lora_adapter",
        {"lora_name": name, "lora_path": str(loading.folder)},
        "vLLM needs --enable-lora, --max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
    )
    names = [model.name for model in list_models(endpoint)]
    if name not in names:
        raise ConfigError(f"{endpoint.url}: loaded {name}, but serves only {', '.join(names)}")
    return Served(endpoint=endpoint, model=name)


def _load_vllm(loading: _Loading) -> Served:
    """vLLM's workers read all weights again; what was cached of the earlier ones is dropped."""
    path = str(loading.folder)
    body = {"method": "reload_weights", "kwargs": {"weights_path": path}}
    needed = "vLLM needs VLLM_SERVER_DEV_MODE=1, and a version whose reload_weights takes a weights_path"
    _post(loading.endpoint, "/collective_rpc", body, needed)
    _post(loading.endpoint, "/reset_prefix_cache", {}, needed)
    return base_model(loading.endpoint, loading.longest)


def _load_sglang(loading: _Loading) -> Served:
    """SGLang reads all weights again and flushes its cache; it then serves them under the folder's name."""
    body = {"model_path": str(loading.folder), "flush_cache": True}
    data = _post(loading.endpoint, "/update_weights_from_disk", body, "SGLang has this since 0.3")
    if not isinstance(data, dict) or data.get("success") is not True:
        raise ConfigError(f"{loading.endpoint.root}: could not load {loading.folder}: {data}")
    return base_model(loading.endpoint, loading.longest)


def _post(endpoint: Endpoint, path: str, body: dict, needed: str) -> object:
    try:
        return ask(endpoint, path, body).data
    except ConfigError as error:
        raise ConfigError(f"{error}; {needed}; the folder must be there for the server, too") from None


# By `rollout.server.load`: form of the export, type of its weights (none is the model's), and the loading.
LOADERS: dict[str, tuple[str, str | None, Callable[[_Loading], Served]]] = {
    "vllm_lora": ("adapter", "float32", _load_adapter),
    "vllm": ("merged", None, _load_vllm),
    "sglang": ("merged", None, _load_sglang),
}
