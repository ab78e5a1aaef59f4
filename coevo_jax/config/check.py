"""Combinations of options that cannot work: refused before anything starts, whoever set them.

What merely does nothing is refused by `coevo_jax.config.idle`, of who set it.
"""

import importlib.util
import os
from collections.abc import Iterator

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.check_adapt import check_adapt
from coevo_jax.config.check_beside import check_beside
from coevo_jax.config.check_hints import check_hints
from coevo_jax.config.check_marks import check_marks
from coevo_jax.config.check_recipe import check_kinds, check_recipe
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import AskPhase, BranchPhase
from coevo_jax.config.recipe_queries import (
    agents_of,
    explorations_of,
    judgings_of,
    lead_of,
    learnings_of,
    together_of,
)
from coevo_jax.config.strict import ConfigError

LARGEST_SEED = 2**32 - 1  # jax.random.key drops the bits beyond without a word: 2**32 would be 0
LONGEST_NAME = 200  # bytes; a file system takes 255, and names made of it are longer


def check(config: Config, source: str = "configuration") -> None:
    """Refuse impossible combinations of valid options.

    Raises:
      ConfigError: with a line for every one of them.
    """
    problems = [*_names_and_slices(config), *_model(config), *_adapters(config), *_lengths(config)]
    problems += [*_places(config), *_server(config)]
    problems += [*check_recipe(config), *check_kinds(config), *check_marks(config)]
    problems += [*check_beside(config), *check_hints(config), *check_adapt(config), *_budget(config)]
    for name, agent in config.agents.items():
        problems += _agent(f"agents.{name}", agent)
    if config.rounds > 0:
        problems += [*_batch_room(config), *_sampling(config)]
    if problems:
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems))


def slice_bounds(text: str) -> tuple[int | None, int | None]:
    """Read "300:900", ":50" or ":" as the bounds of a Python slice."""
    start, _, stop = text.partition(":")
    return (int(start) if start else None), (int(stop) if stop else None)


def _names_and_slices(config: Config) -> Iterator[str]:
    name = config.name
    if not name or name in (".", "..") or set(name) & set("/\\") or any(ord(one) < 32 for one in name):
        yield f"name: found {name!r}, expected the name of a folder, without slashes"
    elif len(os.fsencode(name)) > LONGEST_NAME:
        yield (
            f"name: found {name[:20]!r}… of {len(os.fsencode(name))} bytes, expected at most {LONGEST_NAME}, "
            "for a folder"
        )
    if config.seed > LARGEST_SEED:
        yield f"seed: found {config.seed}, expected at most {LARGEST_SEED}: JAX's random keys have 32 bits"
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
    paths = {"runs_dir": config.runs_dir, "checkpoint.folder": config.checkpoint.folder}
    paths |= {"tokenizer.path": config.tokenizer.path, "budget.run": config.budget.run}
    paths |= {"warm_start.data": config.warm_start.data}
    for key, path in paths.items():
        if "\0" in (path or ""):
            yield f"{key}: found {path!r}, expected a name without the character 0"
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
    scaling = model.rope_scaling
    if scaling and scaling.kind == "llama3" and scaling.low_freq_factor >= scaling.high_freq_factor:
        yield (
            f"model.rope_scaling.low_freq_factor {scaling.low_freq_factor} is not below high_freq_factor "
            f"{scaling.high_freq_factor}"
        )
    if model.path is None and model.vocab_size is not None:
        yield f"model.vocab_size {model.vocab_size} without model.path: a new model has its tokenizer's"
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


def _server(config: Config) -> Iterator[str]:
    server, lora = config.rollout.server, config.model.lora
    if server is None:
        return
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
    together = list(together_of(config.recipe)) if config.explore.together else []
    urls = [server.urls.get(phase.agent, server.url) for phase in together]
    if server.load != "vllm_lora" and len(set(urls)) < len(urls):
        yield (
            f"rollout.server.load {server.load} with explore.together: one server has the weights of one "
            f"agent; expected rollout.server.urls with another one for {together[-1].agent}, or "
            "explore.together false"
        )


def _agent(name: str, agent: AgentConfig) -> Iterator[str]:
    for key, values in (("beta", agent.beta), ("learning_rate", agent.learning_rate)):
        if not values:
            yield f"{name}.{key}: the list is empty, expected one value per round (the last one repeats)"
        elif min(values) <= 0:
            yield f"{name}.{key}: found {list(values)}, expected values above 0"


def _budget(config: Config) -> Iterator[str]:
    budget, rounds = config.budget, config.rounds
    totals = {"pairs": budget.pairs, "explored_tokens": budget.explored_tokens}
    totals = {**totals, "learned_tokens": budget.learned_tokens}
    given = {name: values for name, values in totals.items() if values is not None}
    if budget.run is not None and given:
        yield f"budget.run and budget.{next(iter(given))}: expected a run or numbers, not both"
    if rounds == 0:
        return
    asked = dict.fromkeys([*given, *budget.match])
    for name, values in given.items():
        if len(values) != rounds:
            yield f"budget.{name}: found {len(values)} values, expected one for each of the {rounds} rounds"
    lead, agents = lead_of(config.recipe), agents_of(config.recipe)
    learnings = learnings_of(config.recipe, lead)
    for name in asked:
        if name != "pairs" and len(agents) > 1:
            yield (
                f"budget.{name} is what all agents of a run take together, all for one agent alone: found "
                f"the agents {', '.join(agents)} in the recipe"
            )
        if name != "explored_tokens" and len(learnings) > 1:
            yield f"budget.{name}: the agent {lead} learns {len(learnings)} times a round, expected once"
    explorations = explorations_of(config.recipe)
    if "explored_tokens" in asked and len(explorations) != 1:
        yield f"budget.explored_tokens: found {len(explorations)} explorations a round, expected one"
    for phase in judgings_of(config.recipe) if "learned_tokens" in asked else ():
        yield f"budget.learned_tokens: found {phase.name} in the recipe, whose tokens no budget holds back"
    others = [phase for phase in config.recipe if isinstance(phase, BranchPhase | AskPhase)]
    for phase in others if "explored_tokens" in asked else ():
        yield f"budget.explored_tokens: found {phase.name} in the recipe, whose tokens no budget holds back"


def _sampling(config: Config) -> Iterator[str]:
    if config.explore.samples > 1 and config.explore.temperature == 0:
        yield (
            f"explore.samples {config.explore.samples} at explore.temperature 0 are identical; "
            "use a temperature above 0 or one sample"
        )


def _batch_room(config: Config) -> Iterator[str]:
    """A pair is never torn apart, so a microbatch must have room for one: a view of either side at least."""
    batch = config.batch
    room = batch.rows * batch.views_per_row
    for name, agent in config.agents.items():
        pairs = [pair for learning in learnings_of(config.recipe, name) for pair in learning.pairs]
        # Length desensitising weighs the chosen side's tokens otherwise than its SFT term does.
        imitated = agent.ld_alpha < 1 and any(pair.sft > 0 for pair in pairs)
        needed = 3 if imitated else 2
        if pairs and room < needed:
            yield (
                f"batch.rows * batch.views_per_row = {room} views in a microbatch cannot hold the {needed} "
                f"that one pair of the {name} agent may take"
            )
