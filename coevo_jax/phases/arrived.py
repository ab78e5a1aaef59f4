"""Whether a server writes with the weights that it was told to load.

That it says so is no proof: vLLM 0.32 answers 200 to weights with tied embeddings and keeps the output head
that it had (`loading.form_of`). What a server writes comes with its log-probabilities, and the learner's own
forward pass has those of the same tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.rollout.endpoint import Completion, Served, ask, completion_body, read_completion
from coevo_jax.trajectory import Ending, Trajectory

PROMPTS, TOKENS = 4, 16  # texts that a server writes after each load, and tokens of each
# Nats between a server's log-probability of a token and the learner's that are rounding, by type.
NOISE = {"float32": 1e-4, "bfloat16": 0.05}


def prompts_of(experts: Mapping[str, Trajectory], longest: int) -> list[np.ndarray]:
    """Beginnings of experts' episodes, each up to a turn of the agent; behind them some tokens have room."""
    prompts = []
    for _, expert in sorted(experts.items()):
        wrote = expert.agent_mask
        begins = np.flatnonzero(wrote[1:] & ~wrote[:-1]) + 1
        begins = begins[begins + TOKENS <= longest]
        if len(begins):
            prompts.append(expert.tokens[: begins[-1]])
    return prompts[:: max(1, len(prompts) // PROMPTS)][:PROMPTS]


def check_arrived(served: Served, apart: Sequence[float], *, config: Config, folder: Path) -> None:
    """Refuse a server whose log-probabilities are not the learner's.

    Args:
      apart: `differences` of tokens that it wrote.
      folder: of the weights that were sent, for the message.

    Raises:
      ConfigError: they differ by more than rounding explains.
    """
    most, worst = NOISE[config.model.dtype], float(np.max(apart))
    if not worst <= most:  # NaN is not
        raise ConfigError(
            f"{served.endpoint.url}, model {served.model}: the log-probabilities of what it writes differ "
            f"from the learner's by up to {worst:.2g} nats, expected at most {most:g}, as rounding explains "
            f"in {config.model.dtype}: it does not compute with the weights of {folder}, or in another type. "
            f"{_likely(config)}"
        )


def differences(
    served: Served,
    prompts: Sequence[np.ndarray],
    *,
    config: Config,
    pad_id: int,
    vocab_size: int,
    score: Callable[[PreferenceBatch], jax.Array],
) -> list[float]:
    """Let a server write; of each token, nats between its log-probability and the learner's.

    Args:
      score: log-probabilities [B, K] of a batch's scored tokens under the weights that were sent.
    """
    found: list[float] = []
    for number, prompt in enumerate(prompts):
        written = _write(served, prompt, number, vocab_size)
        own = _own_logps(prompt, written, config=config, pad_id=pad_id, score=score)
        found += np.abs(own - np.asarray(written.logps)).tolist()
    return found


def _likely(config: Config) -> str:
    """What has been seen to be the cause."""
    server = config.rollout.server
    assert server is not None
    causes = []
    if server.load == "sglang":
        causes.append("SGLANG_RETURN_ORIGINAL_LOGPROB=1 is missing")
    if server.load == "vllm_lora":
        causes.append(f"the server's base is not {config.model.path}")
    causes.append(f"--dtype {config.model.dtype} is missing where the server was started")
    return "Look whether " + "; or ".join(causes)


def _write(served: Served, prompt: np.ndarray, seed: int, vocab_size: int) -> Completion:
    body = completion_body(
        served.model,
        prompt.tolist(),
        max_tokens=TOKENS,
        stop=[],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        seed=seed,
    )
    where = f"{served.endpoint.url}/completions, model {served.model}"
    return read_completion(
        ask(served.endpoint, "/v1/completions", body).data, body, where, vocab_size=vocab_size
    )


def _own_logps(
    prompt: np.ndarray,
    written: Completion,
    *,
    config: Config,
    pad_id: int,
    score: Callable[[PreferenceBatch], jax.Array],
) -> np.ndarray:
    """The learner's log-probabilities of what a server wrote after a prompt, on a row of its own."""
    tokens = np.concatenate([prompt, np.asarray(written.tokens, np.int32)])
    one = Trajectory(
        task_id="",
        agent="",
        sample=0,
        prompt="",
        turns=(),
        reward=0.0,
        ending=Ending.FAILED,
        tokens=tokens,
        agent_mask=np.arange(len(tokens)) >= len(prompt),
        logps=np.zeros(len(tokens), np.float32),
    )
    (batch,) = pack_sft([one], batch=config.batch, pad_id=pad_id, seed=0).batches
    scored = np.flatnonzero(np.asarray(batch.view_weight).sum(axis=(0, 1)))
    row = int(np.flatnonzero(np.asarray(batch.view_weight).sum(axis=(1, 2)))[0])
    return np.asarray(jax.device_get(score(batch)))[row, scored]
