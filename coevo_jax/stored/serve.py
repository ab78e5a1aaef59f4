"""Serve a stored agent over an OpenAI-compatible API: what `launch.serve` does."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import ChatFormat, chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.learning.programs import make_learning
from coevo_jax.openai_server.batcher import Batcher
from coevo_jax.openai_server.http_server import ApiServer
from coevo_jax.openai_server.service import Service
from coevo_jax.openai_server.wanted import Limits
from coevo_jax.phases.agents import load_agent, newest_checkpoint
from coevo_jax.phases.world import TOKENIZER_DIR, embedded_tokens, stop_table_of
from coevo_jax.rollout.placement import place_rollouts, rollout_weights
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import read_manifest, verify_files
from coevo_jax.run_folder.stopping import StopRequest
from coevo_jax.sampling.decode import Weights
from coevo_jax.sampling.engine import Engine
from coevo_jax.sharding import make_mesh
from coevo_jax.stored.evaluate import on_this_machine
from coevo_jax.stored.marks import used_mark

LAST_ANSWERS = 5.0  # seconds in which the last answers have to be sent


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedAgent:
    """A stored agent on the devices, with the engine that lets it write."""

    config: Config
    chat: ChatFormat
    engine: Engine
    weights: Weights
    checkpoint: int
    mark: str  # that tasks are put under

    @property
    def limits(self) -> Limits:
        return Limits(context=self.engine.config.max_tokens, vocab_size=self.engine.model.vocab_size)


def load_served(folder: Path, *, agent: str, slots: int | None, mark: str | None = None) -> ServedAgent:
    """Load an agent's newest checkpoint; without its environment, which a client plays.

    Args:
      slots: texts written side by side; None takes the run's.
      mark: that the user's first message is put under; "" puts it under none, None takes the recipe's.

    Raises:
      ConfigError: not a run, a damaged one, no trained agent of that name, or a mark that the chat format
        cannot hold.
    """
    manifest = read_manifest(folder)
    config = load_resolved(folder / CONFIG_FILE)
    verify_files(folder, manifest)
    newest_checkpoint(folder, manifest, agent)
    mark = used_mark(folder, config, agent, mark)
    config = on_this_machine(config)
    chat = chat_format(load_tokenizer(folder / TOKENIZER_DIR))
    mesh = make_mesh(config.mesh, config.model.num_kv_heads)
    learner = make_learning(config, embedded_tokens(config, chat), mesh).learner
    rollouts = place_rollouts(learner, config.rollout, mesh)
    options = config.rollout.model_copy(update={"slots": slots or config.rollout.slots})
    stop = stop_table_of(config, chat)
    engine = Engine(learner.model, options, chat.end_id, sharding=rollouts.slots, stop=stop)
    stored = load_agent(folder, manifest, agent, learner)
    weights = engine.load(*rollout_weights(rollouts, stored.frozen, [stored.params]))
    return ServedAgent(
        config=config, chat=chat, engine=engine, weights=weights, checkpoint=stored.checkpoint, mark=mark
    )


def serve(
    served: ServedAgent,
    *,
    name: str,
    host: str,
    port: int,
    most_waiting: int,
    asked: Callable[[], bool],
    ready: Callable[[ApiServer, Service], None],
) -> Batcher:
    """Answer requests until somebody asks to end; those under way are answered then.

    The devices are used by the thread that calls this, HTTP by others.

    Args:
      name: of the model, for clients.
      port: 0 takes a free one.
      asked: whether to end.
      ready: called once requests are answered.

    Returns:
      What wrote the texts, for its counts.

    Raises:
      ConfigError: the address cannot be listened on.
    """
    batcher = Batcher(served.engine, served.weights, most_waiting=most_waiting)
    batcher.warm_up()
    service = Service(name=name, chat=served.chat, batcher=batcher, limits=served.limits, mark=served.mark)
    try:
        server = ApiServer(host, port, service)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: cannot be listened on: {error}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name="http-server")
    thread.start()
    try:
        ready(server, service)
        batcher.run(asked)
    finally:
        server.stop(LAST_ANSWERS)
        thread.join()
    return batcher


def serve_stored(
    folder: Path,
    *,
    agent: str,
    name: str | None,
    host: str,
    port: int,
    slots: int | None,
    most_waiting: int,
    mark: str | None,
    ready: Callable[[ServedAgent, ApiServer, Service], None],
) -> Batcher:
    """Serve an agent of a stored run until SIGTERM or SIGINT; writes nothing. A second signal ends at once.

    Raises:
      ConfigError: as `load_served` and `serve`.
    """
    served = load_served(folder, agent=agent, slots=slots, mark=mark)
    with StopRequest() as stop:
        return serve(
            served,
            name=name or f"{served.config.name}-{agent}",
            host=host,
            port=port,
            most_waiting=most_waiting,
            asked=stop.asked,
            ready=lambda server, service: ready(served, server, service),
        )
