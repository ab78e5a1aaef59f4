"""How servers are made to load weights: answers that get lost, refusals, and who is left alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.phases.loading import LOADERS, Loading, require_paths
from coevo_jax.rollout.endpoint import Endpoint
from tests.rollout.stub_server import BASE, Stub, StubServer

HEX = "0123456789ab"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@dataclass(eq=False)
class Listing(Stub):
    """A server that lists what it was told to load, and reads none of it."""

    def __post_init__(self):
        return

    def load_adapter(self, name: str, folder: Path) -> None:
        self.adapters[name] = folder

    def load_weights(self, folder: Path) -> None:
        self.params = folder


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("coevo_jax.rollout.endpoint.WAITS", (0.01,))
    monkeypatch.setattr("coevo_jax.phases.loading.WAITS", (0.01,))
    with StubServer(Listing(model=None, params=None)) as server:
        yield server


def loading(server: StubServer, number: str = HEX, timeout: float = 20.0) -> Loading:
    return Loading(
        endpoint=Endpoint(url=server.url, timeout=timeout),
        folder=Path("/runs/quickstart/served") / f"target-{number}",
        prefix="quickstart-target-",
        longest=100,
    )


def asked(server: StubServer, path: str) -> list[Any]:
    return [body for found, body in server.stub.posted if found == path]


def test_an_answer_that_gets_lost_is_looked_up_not_repeated(server):
    first = LOADERS["vllm_lora"].load(loading(server)).model
    server.stub.lost += [UNLOAD, LOAD]
    second = LOADERS["vllm_lora"].load(loading(server, HEX[::-1])).model
    assert list(server.stub.adapters) == [second] != [first] and not server.stub.lost
    assert len(asked(server, LOAD)) == 2 and asked(server, UNLOAD) == [{"lora_name": first}]
    server.stub.lost.append("/update_weights_from_disk")
    served = LOADERS["sglang"].load(loading(server))
    assert served.model.endswith(HEX) and len(asked(server, "/update_weights_from_disk")) == 1


def test_what_a_server_will_never_do_is_said_at_once(server):
    server.stub.broken[LOAD] = "LoRA rank 64 is greater than max_lora_rank 16"
    with pytest.raises(ConfigError, match=r"rank 64 is greater.*--max-lora-rank"):
        LOADERS["vllm_lora"].load(loading(server, timeout=1e6))


def test_adapters_of_others_are_left_alone(server):
    """Of an agent whose name begins alike, of a run whose name does, and of another run of this very name."""
    others = {
        f"quickstart-target-ipo-seed0-target-{HEX}": "/runs/quickstart-target-ipo-seed0/served/a",
        f"quickstart-targets-{HEX}": "/runs/quickstart/served/b",
        "quickstart-target-mine": "/runs/quickstart/served/c",
        f"quickstart-target-{HEX[::-1]}": "/elsewhere/quickstart/served/d",
    }
    server.stub.adapters |= others
    server.stub.roots |= others
    own = LOADERS["vllm_lora"].load(loading(server)).model
    newer = LOADERS["vllm_lora"].load(loading(server, "a" * 12)).model
    assert {*server.stub.adapters} == {*others, newer} and asked(server, UNLOAD) == [{"lora_name": own}]


def test_a_prefix_cache_that_is_held_is_asked_for_again_and_in_the_end_named(server):
    server.stub.held = 3
    assert LOADERS["vllm"].load(loading(server)).model == BASE
    assert len(asked(server, "/reset_prefix_cache")) == 3 and len(asked(server, "/collective_rpc")) == 1
    server.stub.held = 1 << 30
    with pytest.raises(
        ConfigError, match=r"reset_prefix_cache: found .*False.* anybody else use this server"
    ):
        LOADERS["vllm"].load(loading(server, timeout=0.3))


@pytest.mark.parametrize("load", sorted(LOADERS))
def test_the_paths_that_loading_needs_are_asked_for_without_loading(load, server):
    require_paths(loading(server).endpoint, load)
    assert not server.stub.adapters and server.stub.params is None
    server.stub.dynamic = False
    with pytest.raises(ConfigError, match=rf"{LOADERS[load].paths[0]}: .*HTTP 404.*(needs|has this)"):
        require_paths(loading(server).endpoint, load)
