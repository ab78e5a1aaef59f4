"""Combinations of options that cannot work, or would silently do nothing: refused before anything starts."""

import importlib.util
from collections.abc import Iterator

from coevo_jax.config.options import Config, EnvConfig, LearnConfig
from coevo_jax.config.strict import ConfigError

# Options that act through the preference loss alone.
LOSS_OPTIONS = (
    "loss",
    "loss_options",
    "divergence",
    "divergence_alpha",
    "ld_alpha",
    "wpo",
    "reference_every",
)


def check(config: Config, source: str = "configuration") -> None:
    """Refuse impossible combinations of valid options. Raises ConfigError that lists every one of them."""
    problems = [*_names_and_slices(config), *_model(config), *_adapters(config), *_lengths(config)]
    problems += [*_workers(config), *_places(config), *_server(config)]
    problems += _agent("target", config.target)
    problems += [*_agent("failure", config.failure), *_budget(config)]
    if config.rounds > 0:
        problems += [*_target(config), *_failure_agent(config), *_batch_room(config), *_sampling(config)]
        problems += _idle_options("target", config.target)
        if config.failure.explore and config.failure.learn:
            problems += _idle_options("failure", config.failure)
    if problems:
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems))


def slice_bounds(text: str) -> tuple[int | None, int | None]:
    """Read "300:900", ":50" or ":" as the bounds of a Python slice."""
    start, _, stop = text.partition(":")
    return (int(start) if start else None), (int(stop) if stop else None)


def _names_and_slices(config: Config) -> Iterator[str]:
    if not config.name or config.name in (".", "..") or set(config.name) & set("/\\"):
        yield f"name: found {config.name!r}, expected the name of a folder, without slashes"
    slices = {
        "warm_start.tasks": config.warm_start.tasks,
        "evaluate.tasks": config.evaluate.tasks,
    }
    slices |= {f"explore.tasks[{index}]": text for index, text in enumerate(config.explore.tasks)}
    if not config.explore.tasks:
        yield "explore.tasks: found no slice, expected one per round (the last repeats)"
    for key, text in slices.items():
        start, stop = slice_bounds(text)
        if stop is not None and (start or 0) >= stop:
            yield f"{key}: the slice {text} is empty, expected start below stop"


def _places(config: Config) -> Iterator[str]:
    if "://" in config.runs_dir:
        yield (
            f"runs_dir: found '{config.runs_dir}', expected a folder: a run's logs are appended to and "
            "locked, which no bucket can do; checkpoints alone go there by checkpoint.folder"
        )
    scheme, found, _ = (config.checkpoint.folder or "").rpartition("://")
    if found and scheme != "gs":
        yield f"checkpoint.folder: found '{config.checkpoint.folder}', expected a folder or gs://BUCKET/PATH"
    elif found and importlib.util.find_spec("gcsfs") is None:
        yield (
            f"checkpoint.folder: '{config.checkpoint.folder}' needs the package gcsfs: "
            "pip install -r requirements-bucket.txt"
        )


def _model(config: Config) -> Iterator[str]:
    model, tensor = config.model, config.mesh.tensor
    if model.num_heads % model.num_kv_heads:
        yield (
            f"model.num_heads {model.num_heads} is not a multiple of model.num_kv_heads {model.num_kv_heads}"
        )
    if model.head_dim % 2:
        yield f"model.head_dim {model.head_dim} is odd; rotary embeddings turn pairs of dimensions"
    windows = "sliding" in model.layer_types
    if not model.layer_types:
        yield "model.layer_types: the list is empty, expected full or sliding, repeated over the layers"
    if windows != (model.sliding_window is not None):
        yield (
            f"model.sliding_window {model.sliding_window} with model.layer_types {list(model.layer_types)}: "
            "expected a window where a layer is sliding, and none elsewhere"
        )
    if model.sliding_rope_theta is not None and not windows:
        yield "model.sliding_rope_theta does nothing: no entry of model.layer_types is sliding"
    scaling = model.rope_scaling
    if scaling and scaling.kind == "llama3" and scaling.low_freq_factor >= scaling.high_freq_factor:
        yield (
            f"model.rope_scaling.low_freq_factor {scaling.low_freq_factor} is not below high_freq_factor "
            f"{scaling.high_freq_factor}"
        )
    if model.path is None and model.vocab_size is not None:
        yield "model.vocab_size does nothing without model.path: a model from scratch has its tokenizer's"
    split = {"model.num_heads": model.num_heads, "model.intermediate_size": model.intermediate_size}
    if model.vocab_size is not None:
        split["model.vocab_size"] = model.vocab_size
    elif config.tokenizer.path is None:
        split["tokenizer.vocab_size"] = config.tokenizer.vocab_size
    for where, over in (("mesh.tensor", tensor), ("rollout.tensor", config.rollout.tensor)):
        for key, size in split.items():
            if size % over:
                yield f"{key} {size} cannot be split over {where} {over} devices; expected a multiple"
        if model.num_kv_heads % over and over % model.num_kv_heads:
            yield (
                f"model.num_kv_heads {model.num_kv_heads} cannot be split over {where} {over} devices; "
                "expected a multiple, or a divisor, whose heads are then on several devices"
            )
    if model.hidden_size % config.mesh.fsdp:
        yield (
            f"model.hidden_size {model.hidden_size} cannot be split over mesh.fsdp {config.mesh.fsdp} "
            "devices; expected a multiple"
        )
    rows, shards = config.batch.rows, config.mesh.data * config.mesh.fsdp
    if rows % shards:
        yield f"batch.rows {rows} is not a multiple of mesh.data * mesh.fsdp = {shards}"


def _adapters(config: Config) -> Iterator[str]:
    model, lora = config.model, config.model.lora
    if lora is None:
        return
    if lora.base_dtype != "float32" and lora.warm_start == "full":
        yield (
            f"model.lora.base_dtype {lora.base_dtype} needs model.lora.warm_start adapter: a full warm start "
            "trains the base, in float32"
        )
    targets = lora.target_modules
    if not targets:
        yield "model.lora.target_modules: the list is empty, so nothing could be learned; lora: null is plain"
    for name in sorted({name for name in targets if targets.count(name) > 1}):
        yield f"model.lora.target_modules: {name} stands twice"
    heads, kv_heads = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    widths = {"query": heads, "key": kv_heads, "value": kv_heads, "output": heads}
    for name in dict.fromkeys(targets):
        narrow = min(model.hidden_size, widths.get(name, model.intermediate_size))
        if lora.rank > narrow:
            yield (
                f"model.lora.rank {lora.rank} exceeds the {narrow} of the narrower side of {name}: "
                "an adapter would be larger than what it adapts"
            )
    if config.rounds == 0 and lora.warm_start == "full":
        yield (
            "model.lora with warm_start: full does nothing when rounds is 0: the warm start trains all "
            "parameters (warm_start: adapter trains an adapter)"
        )


def _lengths(config: Config) -> Iterator[str]:
    rollout, row_length = config.rollout, config.batch.row_length
    longest = config.model.max_positions
    if longest is not None and rollout.max_tokens > longest:
        yield (
            f"rollout.max_tokens {rollout.max_tokens} exceeds the model's context of {longest} tokens "
            "(model.max_positions)"
        )
    if rollout.max_tokens > row_length:
        yield (
            f"rollout.max_tokens {rollout.max_tokens} exceeds batch.row_length {row_length}: "
            "such a roll-out could not be learned from"
        )
    if rollout.max_turn_tokens >= rollout.max_tokens:
        yield (
            f"rollout.max_turn_tokens {rollout.max_turn_tokens} leaves no room for the prompt in "
            f"rollout.max_tokens {rollout.max_tokens}"
        )


def _workers(config: Config) -> Iterator[str]:
    memory, default = config.env.process_memory_mib, EnvConfig.model_fields["process_memory_mib"].default
    if memory != default and not config.env.processes:
        yield f"env.process_memory_mib {memory} does nothing: env.processes is false"


def _server(config: Config) -> Iterator[str]:
    server, lora = config.rollout.server, config.model.lora
    if server is None:
        return
    if config.rounds == 0:
        yield "rollout.server does nothing: rounds is 0, so no agent explores"
    if config.rollout.joining not in ("auto", "as_ready"):
        yield (
            f"rollout.joining {config.rollout.joining} with rollout.server: expected auto or as_ready, for a "
            "turn goes on when the server has written it"
        )
    if server.load == "vllm_lora" and (
        lora is None or lora.warm_start != "adapter" or config.model.path is None
    ):
        yield (
            "rollout.server.load vllm_lora: expected model.lora with warm_start adapter on a model.path, "
            "which is the base that the server has; vllm and sglang take all weights"
        )
    if server.failure_url is not None and not config.failure.explore:
        yield "rollout.server.failure_url does nothing: failure.explore is false"
    shared = server.failure_url in (None, server.url)
    if server.load != "vllm_lora" and shared and config.failure.explore and config.explore.together:
        yield (
            f"rollout.server.load {server.load} with explore.together: one server has the weights of one "
            "agent; expected another rollout.server.failure_url, or explore.together false"
        )


def _agent(name: str, agent: LearnConfig) -> Iterator[str]:
    for key, values in (("beta", agent.beta), ("learning_rate", agent.learning_rate)):
        if not values:
            yield f"{name}.{key}: the list is empty, expected one value per round (the last one repeats)"
        elif min(values) <= 0:
            yield f"{name}.{key}: found {list(values)}, expected values above 0"
    for kind, weights in agent.pairs:
        if weights is not None and weights.dpo == 0 and weights.sft == 0:
            yield f"{name}.pairs.{kind}: dpo and sft are both 0, so it does nothing; use null to leave it out"


def _idle_options(name: str, agent: LearnConfig) -> Iterator[str]:
    """Options of the loss that have been set and would change nothing."""
    changed = {
        key: value
        for key, value in agent
        if key in LOSS_OPTIONS and value != LearnConfig.model_fields[key].default
    }
    if "divergence_alpha" in changed and agent.divergence != "alpha":
        yield (
            f"{name}.divergence_alpha {agent.divergence_alpha} does nothing: {name}.divergence is "
            f"{agent.divergence}, expected alpha"
        )
    preferring = [weights for _, weights in agent.pairs if weights is not None and weights.dpo > 0]
    for kind, weights in agent.pairs:
        if weights is not None and weights.dpo == 0 and weights.loss is not None:
            yield f"{name}.pairs.{kind}.loss does nothing: {name}.pairs.{kind}.dpo is 0"
    if not preferring:
        for key in changed:
            yield f"{name}.{key} does nothing: no kind of {name}.pairs has a dpo above 0"
    elif "loss" in changed and all(weights.loss is not None for weights in preferring):
        yield f"{name}.loss does nothing: every kind of {name}.pairs has a loss of its own"


def _target(config: Config) -> Iterator[str]:
    target, pairs = config.target, config.target.pairs
    kinds = [kind for kind, weights in pairs if weights is not None]
    if not kinds and not target.sft_successes and not target.sft_experts:
        yield (
            f"rounds is {config.rounds}, but the target agent has nothing to learn from: set a kind of "
            "target.pairs, target.sft_successes or target.sft_experts, or rounds: 0"
        )
    if not config.failure.explore:
        if pairs.expert_failure is not None:
            yield "target.pairs.expert_failure needs a failure agent, but failure.explore is false"
        if pairs.failure_failure is not None and target.cross_agent_only:
            yield "target.cross_agent_only needs a failure agent, but failure.explore is false"
        elif pairs.failure_failure is not None and config.explore.samples < 2:
            yield (
                "target.pairs.failure_failure needs two failures of a task: explore.samples is 1 and "
                "failure.explore is false"
            )


def _failure_agent(config: Config) -> Iterator[str]:
    failure = config.failure
    for key, weight in (("sft_successes", failure.sft_successes), ("sft_experts", failure.sft_experts)):
        if weight > 0:
            yield f"failure.{key}: the failure agent learns from pairs only; use 0"
    kinds = [kind for kind, weights in failure.pairs if weights is not None]
    if failure.explore and failure.learn and not kinds:
        yield (
            "failure.learn is true, but failure.pairs.failure_failure is null, and so are the expert kinds: "
            "the failure agent has nothing to learn from (false freezes it at the warm start)"
        )


def _budget(config: Config) -> Iterator[str]:
    budget, rounds = config.budget, config.rounds
    totals = {"pairs": budget.pairs, "explored_tokens": budget.explored_tokens}
    totals = {**totals, "learned_tokens": budget.learned_tokens}
    given = {name: values for name, values in totals.items() if values is not None}
    if budget.run is not None and given:
        yield f"budget.run and budget.{next(iter(given))}: expected a run or numbers, not both"
    if budget.run is not None and not budget.match:
        yield f"budget.run does nothing: budget.match is empty, expected some of {', '.join(totals)}"
    if budget.run is None and budget.match:
        yield "budget.match does nothing: budget.run names no run to take totals from"
    asked = dict.fromkeys([*given, *budget.match])
    if asked and rounds == 0:
        yield "budget does nothing: rounds is 0, so nothing is explored and no pair is learned from"
        return
    for name, values in given.items():
        if len(values) != rounds:
            yield f"budget.{name}: found {len(values)} values, expected one for each of the {rounds} rounds"
    if "pairs" in asked and all(weights is None for _, weights in config.target.pairs):
        yield "budget.pairs does nothing: no kind of target.pairs is learned from"
    for name in asked:
        if name != "pairs" and config.failure.explore:
            yield (
                f"budget.{name} is what both agents of a run take together, all for a target agent alone: "
                "expected failure.explore false"
            )


def _sampling(config: Config) -> Iterator[str]:
    if config.explore.samples > 1 and config.explore.temperature == 0:
        yield (
            f"explore.samples {config.explore.samples} at explore.temperature 0 are identical; "
            "use a temperature above 0 or one sample"
        )
    if config.explore.temperature == 0:
        for key, value, default in (
            ("top_p", config.explore.top_p, 1),
            ("top_k", config.explore.top_k, 0),
            ("min_p", config.explore.min_p, 0),
        ):
            if value != default:
                yield f"explore.{key} {value} does nothing at explore.temperature 0 (greedy)"
    if not config.explore.together and not config.failure.explore:
        yield "explore.together: false does nothing: failure.explore is false, so one agent explores"


def _batch_room(config: Config) -> Iterator[str]:
    """A pair is never torn apart, so a microbatch must have room for one: a view of either side at least."""
    batch = config.batch
    room = batch.rows * batch.views_per_row
    for name, agent in (("target", config.target), ("failure", config.failure)):
        kinds = [weights for _, weights in agent.pairs if weights is not None]
        # Length desensitising weighs the chosen side's tokens otherwise than its SFT term does.
        imitated = agent.ld_alpha < 1 and any(weights.sft > 0 for weights in kinds)
        needed = 3 if imitated else 2
        if kinds and room < needed:
            yield (
                f"batch.rows * batch.views_per_row = {room} views in a microbatch cannot hold the {needed} "
                f"that one pair of the {name} agent may take"
            )
