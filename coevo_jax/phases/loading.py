"""How a server is made to load an agent's weights from a folder, by the kind of server."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from coevo_jax.config.strict import ConfigError
from coevo_jax.rollout.endpoint import (
    WAITS,
    Endpoint,
    Model,
    Refused,
    Served,
    ask,
    base_model,
    change,
    list_models,
)

NUMBER = 12  # hexadecimal digits that end the names of adapters
LORA_NEEDS = "vLLM needs --enable-lora, --max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
VLLM_NEEDS = "vLLM needs VLLM_SERVER_DEV_MODE=1, and a version whose reload_weights takes a weights_path"
SGLANG_NEEDS = "SGLang has this since 0.3"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Weights on their way to a server."""

    endpoint: Endpoint
    folder: Path  # absolute; of the exported agent, named AGENT-NUMBER
    prefix: str  # of the names of this agent's adapters, those of earlier phases too
    longest: int

    def ours(self, model: Model) -> bool:
        """Whether a model of the server is an adapter that this agent of this run had before.

        Two runs may have one name: where the server says from where it has an adapter, it must be this run's.
        """
        named = re.fullmatch(re.escape(self.prefix) + rf"[0-9a-f]{{{NUMBER}}}", model.name)
        here = not model.root.startswith("/") or Path(model.root).parent == self.folder.parent
        return model.adapter and named is not None and here


def load_adapter(loading: Loading) -> Served:
    """vLLM's dynamic adapters. Earlier ones of the agent are unloaded: their folders go."""
    endpoint = loading.endpoint

    def serves(name: str) -> bool:
        return name in [model.name for model in list_models(endpoint)]

    for model in filter(loading.ours, list_models(endpoint)):
        body = {"lora_name": model.name}
        _change(endpoint, "/v1/unload_lora_adapter", body, LORA_NEEDS, lambda old=model.name: not serves(old))
    base_model(endpoint, loading.longest)
    name = loading.prefix + loading.folder.name.rpartition("-")[2]
    body = {"lora_name": name, "lora_path": str(loading.folder)}
    _change(endpoint, "/v1/load_lora_adapter", body, LORA_NEEDS, lambda: serves(name))
    names = [model.name for model in list_models(endpoint)]
    if name not in names:
        raise ConfigError(f"{endpoint.url}: loaded {name}, but serves only {', '.join(names)}")
    return Served(endpoint=endpoint, model=name)


def load_vllm(loading: Loading) -> Served:
    """vLLM's workers read all weights again; what was cached of the earlier ones is dropped."""
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(loading.folder)}}
    _change(loading.endpoint, "/collective_rpc", body, VLLM_NEEDS)  # twice is as good as once
    _forget_prefixes(loading.endpoint)
    return base_model(loading.endpoint, loading.longest)


def _forget_prefixes(endpoint: Endpoint) -> None:
    """Empty vLLM's prefix cache: what it holds was computed by the weights before.

    vLLM answers 200 also where it has not, since requests still hold blocks of it: they end by themselves.

    Raises:
      ConfigError: it has not within the endpoint's time.
    """
    deadline = time.monotonic() + endpoint.timeout
    for number in range(1 << 30):
        data = _change(endpoint, "/reset_prefix_cache", {}, VLLM_NEEDS)
        if not isinstance(data, dict) or data.get("success") is not False:
            return
        wait = WAITS[min(number, len(WAITS) - 1)]
        if time.monotonic() + wait >= deadline:
            raise ConfigError(
                f"{endpoint.root}/reset_prefix_cache: found {data} for {endpoint.timeout:g} s "
                "(rollout.server.timeout), expected success: requests hold the cache of the earlier weights; "
                "does anybody else use this server?"
            )
        time.sleep(wait)


def load_sglang(loading: Loading) -> Served:
    """SGLang reads all weights again and flushes its cache; it then serves them under the folder's name."""
    endpoint, folder = loading.endpoint, str(loading.folder)

    def serves() -> bool:
        return folder in [model.name for model in list_models(endpoint)]

    body = {"model_path": folder, "flush_cache": True}
    data = _change(endpoint, "/update_weights_from_disk", body, SGLANG_NEEDS, serves)
    if data is not None and (not isinstance(data, dict) or data.get("success") is not True):
        raise ConfigError(f"{endpoint.root}: could not load {folder}: {data}")
    return base_model(endpoint, loading.longest)


def _change(
    endpoint: Endpoint,
    path: str,
    body: dict[str, Any],
    needed: str,
    happened: Callable[[], bool] = lambda: False,
) -> Any:
    try:
        return change(endpoint, path, body, happened)
    except ConfigError as error:
        raise ConfigError(f"{error}; {needed}; the folder must be there for the server, too") from None


class Loader(NamedTuple):
    """A kind of loading."""

    form: str  # of the export, whole weights of a model with tied embeddings aside
    dtype: str | None  # of its weights; None is the model's
    load: Callable[[Loading], Served]
    paths: tuple[str, ...]  # that the server must have for it
    needed: str  # where it has not


# By `rollout.server.load`.
LOADERS: dict[str, Loader] = {
    "vllm_lora": Loader(
        "adapter", "float32", load_adapter, ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"), LORA_NEEDS
    ),
    "vllm": Loader("merged", None, load_vllm, ("/collective_rpc", "/reset_prefix_cache"), VLLM_NEEDS),
    "sglang": Loader("merged", None, load_sglang, ("/update_weights_from_disk",), SGLANG_NEEDS),
}


def form_of(load: str, tied: bool) -> str:
    """The form in which an agent is exported for a server (`agent_folder.FORMS`).

    vLLM 0.32 reads a tied model's embedding anew and keeps the output head that it had, unless the head
    stands beside it in the files: then it is read as well.

    Args:
      tied: whether the model's output head is its embedding.
    """
    return "untied" if load == "vllm" and tied else LOADERS[load].form


def require_paths(endpoint: Endpoint, load: str) -> None:
    """Ask a server for the paths by which it will be made to load weights, with requests that load nothing.

    Raises:
      ConfigError: it does not know one of them.
    """
    loader = LOADERS[load]
    for path in loader.paths:
        try:
            ask(endpoint, path, {}, once=True, busy=())
        except Refused as error:
            if "HTTP 404" in str(error) and "Not Found" in str(error):
                raise ConfigError(f"{error}; {loader.needed}") from None
