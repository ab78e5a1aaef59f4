"""When an option does nothing, in one table. Who sets an idle one is told so; who inherits it is not.

Every option of the schema stands in `RULES` or in `NEVER_IDLE`; a test holds a new one to that.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coevo_jax.config.agents import SurrogateConfig
from coevo_jax.config.check_marks import marks_of
from coevo_jax.config.idle_playing import (
    greedy,
    never_plays,
    no_exploration,
    other_temperatures,
    plays_alone,
)
from coevo_jax.config.judge import JudgeConfig
from coevo_jax.config.options import Config
from coevo_jax.config.origin import Origin
from coevo_jax.config.recipe import PairSource
from coevo_jax.config.recipe_queries import judgings_of, lead_of, learnings_of
from coevo_jax.config.reinforced import no_credit, no_lone_reinforcement, no_reinforcement, tied
from coevo_jax.config.strict import StrictModel

WITHOUT_REFERENCE = ("sft", "simpo", "orpo", "cpo")  # losses that read no reference policy

WRITTEN = ("revisions", "reflections")  # builders of texts that may be longer than any episode

Why = Callable[[Config, str], str]
"""Why an option does nothing, as words after a colon; "" where it does something.

The second argument is the name that stands in the key: the agent's.
"""


@dataclass(frozen=True)
class Rule:
    """Some options, what they depend on, and the reason why they do nothing where they do."""

    keys: tuple[str, ...]  # dotted; NAME stands for any name
    decided_by: tuple[str, ...]  # keys that make them idle; whoever sets one of these later knows it
    why: Why


def idle_options(config: Config, origin: Origin) -> Iterator[str]:
    """Every option that was set and does nothing, each in one sentence that names who set it."""
    told: list[str] = []
    for rule in RULES:
        for pattern in rule.keys:
            for key, name in _named(pattern, config):
                if any(f"{key}.".startswith(f"{other}.") for other in told) or is_default(config, key):
                    continue
                decided_by = tuple(other.replace("NAME", name) for other in rule.decided_by)
                why = rule.why(config, name)
                if why and origin.chose(key, decided_by):
                    told.append(key)
                    found = _show(_value(config, key.split(".")))
                    yield f"{origin.of[key]}: {key}: found {found}, which does nothing: {why}"


def is_default(config: Config, key: str) -> bool:
    """Whether an option has its default value, or its record is not there."""
    *above, last = key.split(".")
    record = _value(config, above)
    if isinstance(record, Mapping):
        return last not in record
    if record is None:
        return True
    field = type(record).model_fields[last]
    return not field.is_required() and getattr(record, last) == field.get_default()


def _named(pattern: str, config: Config) -> Iterator[tuple[str, str]]:
    """The keys of a config that a pattern stands for, each with the name in it."""
    before, named, after = pattern.partition(".NAME")
    if not named:
        yield pattern, ""
        return
    for name in _value(config, before.split(".")) or {}:
        yield f"{before}.{name}{after}", name


def _value(config: Config, parts: list[str]) -> Any:
    value: Any = config
    for part in parts:
        if value is None:
            return None
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
    return value


def _show(value: Any) -> str:
    plain = value.model_dump(mode="json") if isinstance(value, StrictModel) else value
    text = json.dumps(plain, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pairs(config: Config, name: str) -> list[PairSource]:
    return [pair for learning in learnings_of(config.recipe, name or None) for pair in learning.pairs]


def _preferring(config: Config, name: str) -> list[PairSource]:
    return [pair for pair in _pairs(config, name) if pair.dpo > 0]


def _losses(config: Config, name: str) -> set[str]:
    """The names of the losses that an agent's pairs have."""
    own = config.agents[name].loss
    terms = [own if pair.loss is None else pair.loss for pair in _preferring(config, name)]
    return {loss for one in terms for loss in ([one] if isinstance(one, str) else one)}


# Reasons


def _no_rounds(config: Config, _: str) -> str:
    return "" if config.rounds else "rounds is 0, so nothing is explored and no agent learns from pairs"


def _no_pairs_of_one(config: Config, name: str) -> str:
    return "" if _pairs(config, name) else f"the agent {name} learns from no pairs"


def _no_pairs_at_all(config: Config, _: str) -> str:
    return "" if _pairs(config, "") else "no agent learns from pairs"


def _no_pairs_of_lead(config: Config, _: str) -> str:
    return _no_pairs_of_one(config, lead_of(config.recipe))


def _match_without_pairs(config: Config, name: str) -> str:
    why = _no_pairs_of_lead(config, name) if "pairs" in config.budget.match else ""
    return why and f"its pairs, for {why}"


def _no_preference(config: Config, name: str) -> str:
    return "" if _preferring(config, name) else "no pairs that it learns from have a dpo above 0"


def _no_term_with_reference(config: Config, name: str) -> str:
    why = "" if tied(config, name) else _no_preference(config, name)
    return why and f"{why}, and nothing is reinforced with a kl above 0"


def _no_reference(config: Config, name: str) -> str:
    losses = _losses(config, name)
    reads = tied(config, name) or not losses <= {*WITHOUT_REFERENCE}
    return "" if reads else f"{', '.join(sorted(losses))} reads no reference"


def _no_beta(config: Config, name: str) -> str:
    return "the loss sft has no beta" if _losses(config, name) == {"sft"} else ""


def _no_imitation(config: Config, name: str) -> str:
    learnings = learnings_of(config.recipe, name)
    imitates = any(one.imitations for one in learnings) or any(one.sft > 0 for one in _pairs(config, name))
    return "" if imitates else "nothing that it learns from is imitated: no pairs have an sft above 0"


def _own_losses(config: Config, name: str) -> str:
    own = all(pair.loss is not None for pair in _preferring(config, name))
    return "every kind of pair that it learns from has a loss of its own" if own else ""


def _other_divergence(config: Config, name: str) -> str:
    found = config.agents[name].divergence
    return "" if found == "alpha" else f"agents.{name}.divergence is {found}, expected alpha"


def _learns_once(config: Config, name: str) -> str:
    once = config.rounds == 1 and len(learnings_of(config.recipe, name)) == 1
    return "it learns once, right after the warm start" if once else ""


def _no_judge(config: Config, _: str) -> str:
    return "" if judgings_of(config.recipe) else "the recipe has no phase that judges"


def _steps_by_budget(config: Config, name: str) -> str:
    budget = config.budget
    asked = budget.learned_tokens is not None or "learned_tokens" in budget.match
    return (
        "budget's learned_tokens say how long it learns" if asked and name == lead_of(config.recipe) else ""
    )


def _surplus(key: str) -> Why:
    """The reason why the last values of a list with one per round are never used."""

    def why(config: Config, name: str) -> str:
        values = _value(config, key.replace("NAME", name).split("."))
        more = len(values) - config.rounds
        return f"it has {len(values)} values, and rounds is {config.rounds}" if more > 0 else ""

    return why


def _no_process(config: Config, _: str) -> str:
    return "" if config.env.processes else "env.processes is false"


def _given_tokenizer(config: Config, _: str) -> str:
    given = [key for key in ("tokenizer", "model") if getattr(config, key).path is not None]
    return f"the tokenizer is {given[0]}.path's, so none is trained" if given else ""


def _fits(config: Config, _: str) -> str:
    if marks_of(config):  # a trajectory may have played under another mark than it is learned under
        return ""
    learnings = learnings_of(config.recipe)
    if any(one.imitate in WRITTEN for learning in learnings for one in learning.imitations):
        return ""
    return (
        "no trajectory is longer than a row: rollout.max_tokens is at most batch.row_length, and longer "
        "experts are left out"
    )


def _no_data(config: Config, _: str) -> str:
    return "" if config.warm_start.data else "warm_start.data is null, and an environment's experts are whole"


def _no_adapter(config: Config, _: str) -> str:
    lora = config.model.lora
    if config.rounds or lora is None or lora.warm_start == "adapter":
        return ""
    return "rounds is 0, and the warm start trains all parameters (warm_start: adapter trains an adapter)"


def _no_window(config: Config, _: str) -> str:
    return "" if "sliding" in config.model.layer_types else "no entry of model.layer_types is sliding"


def _all_windows(config: Config, _: str) -> str:
    model = config.model
    other = model.sliding_rope_theta is not None and set(model.layer_types) == {"sliding"}
    return "every layer is sliding and has model.sliding_rope_theta" if other else ""


def _more_layer_types(config: Config, _: str) -> str:
    model = config.model
    more = len(model.layer_types) > model.num_layers
    return f"its end, for model.num_layers is {model.num_layers}" if more else ""


def _unscaled(config: Config, _: str) -> str:
    scaling = config.model.rope_scaling
    return "a factor of 1 leaves the positions as they are" if scaling and scaling.factor == 1 else ""


def _linear(config: Config, _: str) -> str:
    scaling = config.model.rope_scaling
    linear = scaling is not None and scaling.kind == "linear"
    return "model.rope_scaling.kind is linear, expected llama3" if linear else ""


def _no_match(config: Config, _: str) -> str:
    words = "budget.match is empty, expected some of pairs, explored_tokens, learned_tokens"
    return "" if config.budget.match else words


def _no_run(config: Config, _: str) -> str:
    return "" if config.budget.run is not None else "budget.run names no run to take totals from"


def _of_agents(*names: str) -> tuple[str, ...]:
    return tuple(f"agents.NAME.{name}" for name in names)


_EXPLORE = tuple(
    f"explore.{name}" for name in ("tasks", "samples", "temperature", "top_p", "top_k", "min_p", "together")
)
_BUDGET = ("budget.run", "budget.match", "budget.pairs", "budget.explored_tokens", "budget.learned_tokens")
_PREFERENCE = _of_agents(
    *("loss", "loss_options", "divergence", "divergence_alpha", "ld_alpha", "wpo", "beta"),
)
_REFERENCE = _of_agents("reference", "reference_every")
_SURROGATE = _of_agents(*(f"surrogate.{name}" for name in SurrogateConfig.model_fields))
_JUDGE = tuple(f"judge.{name}" for name in JudgeConfig.model_fields)
_TERMS = (*_PREFERENCE, *_REFERENCE, *_SURROGATE)
_LEARNING = _of_agents(
    *("max_pairs_per_kind", "pairs_kept", "sft_reduction", "turn_discount"),
    *("learning_rate", "warmup_fraction", "epochs", "keep_optimizer"),
)
_LLAMA3 = tuple(
    f"model.rope_scaling.{name}" for name in ("low_freq_factor", "high_freq_factor", "original_max_positions")
)

RULES = (
    Rule(("rollout.server", *_EXPLORE, *_BUDGET, *_TERMS, *_LEARNING, *_JUDGE), ("rounds",), _no_rounds),
    Rule(_JUDGE, ("recipe",), _no_judge),
    Rule(("judge.learning_rate",), ("rounds",), _surplus("judge.learning_rate")),
    Rule(("batch.pairs", "batch.step_pairs", "batch.step_episodes"), ("rounds",), _no_rounds),
    Rule(("model.lora",), ("rounds", "model.lora.warm_start"), _no_adapter),
    Rule(("explore.top_p", "explore.top_k", "explore.min_p"), ("explore.temperature",), greedy),
    Rule(("explore.together",), ("recipe",), plays_alone),
    Rule(("explore.samples",), ("recipe",), no_exploration),
    Rule(("explore.temperature",), ("recipe",), other_temperatures),
    Rule(("explore.tasks",), ("rounds",), _surplus("explore.tasks")),
    Rule(("rollout.server.urls.NAME",), ("recipe",), never_plays),
    Rule(("env.process_memory_mib",), ("env.processes",), _no_process),
    Rule(("tokenizer.vocab_size",), ("tokenizer.path", "model.path"), _given_tokenizer),
    Rule(("warm_start.data_errors", "warm_start.best_of_task"), ("warm_start.data",), _no_data),
    Rule(("model.sliding_rope_theta",), ("model.layer_types",), _no_window),
    Rule(
        ("model.rope_theta", "model.rope_scaling"),
        ("model.layer_types", "model.sliding_rope_theta"),
        _all_windows,
    ),
    Rule(("model.rope_scaling",), ("model.rope_scaling.factor",), _unscaled),
    Rule(_LLAMA3, ("model.rope_scaling.kind",), _linear),
    Rule(("model.layer_types",), ("model.num_layers",), _more_layer_types),
    Rule(("batch.pairs", "batch.step_pairs"), ("recipe",), _no_pairs_at_all),
    Rule(("batch.step_episodes",), ("recipe",), no_lone_reinforcement),
    Rule(("batch.too_long",), (), _fits),
    Rule(("budget.run",), ("budget.match",), _no_match),
    Rule(("budget.match",), ("budget.run",), _no_run),
    Rule(("budget.pairs",), ("recipe",), _no_pairs_of_lead),
    Rule(("budget.match",), ("recipe",), _match_without_pairs),
    Rule(_of_agents("max_pairs_per_kind", "pairs_kept"), ("recipe",), _no_pairs_of_one),
    Rule(_PREFERENCE, ("recipe",), _no_preference),
    Rule(_REFERENCE, ("recipe", "agents.NAME.surrogate"), _no_term_with_reference),
    Rule(_SURROGATE, ("recipe",), no_reinforcement),
    Rule(_of_agents("turn_discount"), ("recipe",), no_credit),
    Rule(_of_agents("loss"), ("recipe",), _own_losses),
    Rule(_of_agents("reference", "reference_every"), ("recipe", "agents.NAME.loss"), _no_reference),
    Rule(_of_agents("beta"), ("recipe", "agents.NAME.loss"), _no_beta),
    Rule(_of_agents("divergence_alpha"), ("agents.NAME.divergence",), _other_divergence),
    Rule(_of_agents("sft_reduction"), ("recipe",), _no_imitation),
    Rule(_of_agents("epochs"), ("budget",), _steps_by_budget),
    Rule(_of_agents("keep_optimizer", "reference"), ("rounds", "recipe"), _learns_once),
    Rule(_of_agents("beta"), ("rounds",), _surplus("agents.NAME.beta")),
    Rule(_of_agents("learning_rate"), ("rounds",), _surplus("agents.NAME.learning_rate")),
)

# What the warm start, an evaluation or the run's bookkeeping reads, in every run. Of the model, what may
# stand beside model.path must agree with it; `model.vocab_size` without one, and windows without a layer
# that has them, cannot be (`check`).
NEVER_IDLE = frozenset(
    {
        *("format", "name", "method", "seed", "runs_dir", "rounds", "recipe"),
        *("env.name", "env.options", "env.workers", "env.processes", "env.step_timeout"),
        "env.max_fault_share",
        "tokenizer.path",
        *(
            f"model.{name}"
            for name in (
                *("path", "vocab_size", "max_positions", "hidden_size", "num_layers", "num_heads"),
                *("num_kv_heads", "head_dim", "intermediate_size", "sliding_window", "rms_norm_eps"),
                *("norm_offset", "post_norms", "qk_norm", "qkv_bias", "query_scale", "activation"),
                *("embedding_scale", "tie_embeddings", "dtype", "attention", "remat"),
                *("rope_scaling.kind", "rope_scaling.factor"),
                *("lora.rank", "lora.alpha", "lora.target_modules", "lora.warm_start", "lora.base_dtype"),
            )
        ),
        *("mesh.data", "mesh.fsdp", "mesh.tensor"),
        *("batch.rows", "batch.row_length", "batch.views_per_row", "batch.share_prefixes"),
        "batch.step_demonstrations",  # of the warm start, too
        *("optimizer.adam_b1", "optimizer.adam_b2", "optimizer.weight_decay", "optimizer.clip_norm"),
        "optimizer.nonfinite",
        *("warm_start.tasks", "warm_start.data", "warm_start.epochs"),
        *("warm_start.learning_rate", "warm_start.warmup_fraction", "warm_start.learn"),
        "explore.block_tasks",  # of evaluations, too
        *("rollout.slots", "rollout.max_tokens", "rollout.max_turn_tokens", "rollout.decode_block"),
        *("rollout.joining", "rollout.stop_at_action_line", "rollout.tensor"),
        *("rollout.server.url", "rollout.server.load", "rollout.server.timeout"),
        *("evaluate.split", "evaluate.tasks", "evaluate.hard_negative_threshold"),
        *("checkpoint.every_steps", "checkpoint.keep", "checkpoint.folder"),
        *("log.wandb", "log.wandb.project", "log.wandb.mode"),
    }
)
