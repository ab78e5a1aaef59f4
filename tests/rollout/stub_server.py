"""A small OpenAI-compatible server for tests: vLLM's and SGLang's endpoints around the engine of the package.

It reads the weights that it is told to load from their folders, as the real servers do, and draws with the
seed of each request. `python -m tests.rollout.stub_server FOLDER` serves a checkpoint folder and prints its
port.
"""

import json
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from coevo_jax.config.options import LoraConfig, RolloutConfig
from coevo_jax.models.huggingface.names import PROJECTION_NAMES
from coevo_jax.models.lora import merge
from coevo_jax.models.transformer import PROJECTIONS
from coevo_jax.sampling.engine import Engine, Request, Sampling
from tests.models.checkpoints import config_of, learner_of, params_of

BASE = "base"


@dataclass(eq=False)
class Stub:
    """What the server has and does; tests change it while it runs."""

    model: Any  # Transformer
    params: Any
    longest: int = 160
    eos: frozenset[int] = frozenset()  # further tokens that end a text, as a generation_config.json may name
    adapters: dict[str, Any] = field(default_factory=dict)  # name -> whole parameters
    roots: dict[str, str] = field(default_factory=dict)  # name of an adapter -> its folder
    served_name: str = BASE
    dynamic: bool = True  # adapters and weights can be loaded
    delay: float = 0.0  # seconds an answer takes
    held: int = 0  # resets of the prefix cache until one succeeds
    keeps_head: bool = False  # of a model with tied embeddings, as vLLM does
    lost: list[str] = field(default_factory=list)  # paths whose next answer gets lost, after it was done
    broken: dict[str, str] = field(default_factory=dict)  # path -> what its every HTTP 500 says
    asked: list[dict] = field(default_factory=list)  # bodies of /v1/completions
    posted: list[tuple[str, Any]] = field(default_factory=list)  # the other requests
    plan: deque[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=deque)  # of the next ones
    edit: Callable[[dict], Any] = lambda answer: answer  # changes what a completion says
    lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self):
        config = RolloutConfig(slots=1, max_tokens=self.longest, max_turn_tokens=self.longest, decode_block=8)
        self.engine = Engine(self.model, config, end_id=-1)
        self.weights: dict[int, tuple[Any, Any]] = {}  # by the id of the parameters, which are kept beside

    def complete(self, body: dict) -> dict:
        names = {self.served_name: self.params, **self.adapters}
        if body["model"] not in names:
            raise LookupError(f"The model `{body['model']}` does not exist.")
        if len(body["prompt"]) + body["max_tokens"] > self.longest:
            raise ValueError(f"This model's maximum context length is {self.longest} tokens.")
        with self.lock:
            tokens, logps = self._write(names[body["model"]], body)
        ended = tokens[-1] in {*body["stop_token_ids"], *self.eos}
        choice = {"index": 0, "text": "?", "finish_reason": "stop" if ended else "length"}
        if body.get("logprobs") is not None:
            words = ["?"] * len(tokens)
            choice["logprobs"] = {"tokens": words, "token_logprobs": logps, "top_logprobs": []}
        if body.get("return_token_ids"):
            choice |= {"token_ids": tokens, "prompt_token_ids": body["prompt"]}
        return self.edit({"object": "text_completion", "model": body["model"], "choices": [choice]})

    def _write(self, params: Any, body: dict) -> tuple[list[int], list[float]]:
        engine, tokens, logps = self.engine, [], []
        if id(params) not in self.weights:
            self.weights[id(params)] = (params, engine.load(params))
        weights = self.weights[id(params)][1]
        sampling = Sampling(
            root=jax.random.key(body["seed"]),
            temperature=body["temperature"],
            top_p=body["top_p"],
            top_k=max(0, body["top_k"]),
            min_p=body["min_p"],
        )
        stop = {*body["stop_token_ids"], *self.eos}
        engine.held.clear()
        engine.end_id = next(iter(stop), -1)
        engine.prefill(weights, {0: np.array(body["prompt"], np.int32)}, frozenset({0}))
        while len(tokens) < body["max_tokens"]:
            # Where several tokens end the text, one at a time.
            budget = body["max_tokens"] - len(tokens) if len(stop) < 2 else 1
            request = Request(budget=budget, ids=(0, 0, 0, 0))
            written = engine.decode(weights, {0: request}, sampling, quota=1).fetch()[0]
            tokens, logps = tokens + written.tokens, logps + written.logps
            if tokens[-1] in stop:
                break
        return tokens, logps

    def load_adapter(self, name: str, folder: Path) -> None:
        """A PEFT adapter, merged into the base."""
        described = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        lora = LoraConfig(rank=described["r"], alpha=float(described["lora_alpha"]))
        layers = {}
        for projection, axes in PROJECTIONS.items():
            if PROJECTION_NAMES[projection].rpartition(".")[2] not in described["target_modules"]:
                continue
            whole = self.params["layers"][projection]
            stem = f"base_model.model.model.layers.{{}}.{PROJECTION_NAMES[projection]}.lora_{{}}.weight"
            into = len(axes[0])
            factors = {}
            for letter, shape in (
                ("a", (*whole.shape[1 : 1 + into], lora.rank)),
                ("b", (lora.rank, *whole.shape[1 + into :])),
            ):
                read = [tensors[stem.format(layer, letter.upper())].T for layer in range(len(whole))]
                factors[letter] = np.stack([one.reshape(shape) for one in read])
            layers[projection] = factors
        self.adapters[name] = merge(self.params, {"layers": layers}, lora)

    def post(self, path: str, body: Any) -> Any:
        if not self.dynamic:
            raise FileNotFoundError(path)
        if not body and path != "/reset_prefix_cache":  # who asks whether there is such a path
            raise ValueError("a field is missing")
        self.posted.append((path, body))
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.adapters:
                raise ValueError("The lora adapter has already been loaded.")
            self.load_adapter(body["lora_name"], Path(body["lora_path"]))
            self.roots[body["lora_name"]] = body["lora_path"]
            return "Success: added"  # plain text, as vLLM's
        if path == "/v1/unload_lora_adapter":
            if body["lora_name"] not in self.adapters:
                raise LookupError("The lora adapter cannot be found.")
            del self.adapters[body["lora_name"]]
            return "Success: removed"
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            self.load_weights(Path(body["kwargs"]["weights_path"]))
            return {"results": [None]}
        if path == "/reset_prefix_cache":
            self.held = max(0, self.held - 1)
            return {"success": not self.held}
        if path == "/update_weights_from_disk":
            self.load_weights(Path(body["model_path"]))
            self.served_name = body["model_path"]
            return {"success": True, "message": "Succeeded to update model weights."}
        raise FileNotFoundError(path)

    def load_weights(self, folder: Path) -> None:
        kept = {"embedding": self.params["embedding"]} if self.keeps_head else {}
        self.params = params_of(folder, config_of(folder)) | kept
        self.weights.clear()

    def models(self) -> dict:
        def one(name, parent):
            root = self.roots.get(name, name)
            return {
                "id": name,
                "object": "model",
                "root": root,
                "parent": parent,
                "max_model_len": self.longest,
            }

        return {
            "object": "list",
            "data": [one(self.served_name, None), *(one(name, BASE) for name in self.adapters)],
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        stub: Stub = self.server.stub  # pyright: ignore[reportAttributeAccessIssue]
        if self.path == "/v1/models":
            self.answer(200, stub.models())
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        stub: Stub = self.server.stub  # pyright: ignore[reportAttributeAccessIssue]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/completions":
            stub.asked.append(body)
            if stub.plan:
                stub.plan.popleft()(self)
                return
            time.sleep(stub.delay)
        if body and self.path in stub.broken:
            self.answer(500, {"error": {"message": stub.broken[self.path]}})
            return
        try:
            answer = stub.complete(body) if self.path == "/v1/completions" else stub.post(self.path, body)
        except ValueError as error:
            self.answer(400, {"error": {"message": str(error)}})
        except LookupError as error:
            self.answer(404, {"error": {"message": str(error)}})
        except FileNotFoundError:
            self.answer(404, {"detail": "Not Found"})
        except Exception as error:  # the test is to hear of it at once, not after many tries
            self.answer(418, {"error": {"message": f"the stub broke: {error!r}"}})
        else:
            if body and self.path in stub.lost:
                stub.lost.remove(self.path)
                self.hang_up()
                return
            self.answer(200, answer)

    def answer(self, status: int, data: Any) -> None:
        raw = (data if isinstance(data, str) else json.dumps(data)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class StubServer(ThreadingHTTPServer):
    """Serves a stub on a port of its own, in threads, from `__enter__` to `__exit__`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, stub: Stub, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.stub = stub
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "StubServer":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No longer there: the next connection is refused."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def stub_of(folder: Path, longest: int) -> Stub:
    """A stub with the weights of a checkpoint folder."""
    config = config_of(folder)
    return Stub(model=learner_of(config).model, params=params_of(folder, config), longest=longest)


if __name__ == "__main__":
    with StubServer(stub_of(Path(sys.argv[1]), int(sys.argv[2]))) as server:
        print(server.server_port, flush=True)
        sys.stdin.read()
