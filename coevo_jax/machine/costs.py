"""What a program costs a chip, counted from the model's shapes: floating-point operations and memory traffic.

Rows are taken to be full and all of their tokens to be scored, so that the figures are upper bounds of a
step's. Multiply-adds count twice.
"""

from dataclasses import dataclass

from coevo_jax.config.options import Config, ModelConfig
from coevo_jax.sampling.shapes import CHUNKS

MASTER = 4  # bytes of a float32 weight, moment or gradient
WIDTH = {"bfloat16": 2, "float32": 4}
PASSES = {"": 1, "adapters": 2, "all": 3}  # of a product; backward: of inputs, and of weights


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one call (of decode: of one token of every slot), summed over all chips that work on it."""

    model_flops: float  # without what the backward pass computes again
    flops: float
    traffic: float  # bytes that memories read and write

    def plus(self, other: "Cost") -> "Cost":
        """The cost of both one after the other."""
        return Cost(
            model_flops=self.model_flops + other.model_flops,
            flops=self.flops + other.flops,
            traffic=self.traffic + other.traffic,
        )


NOTHING = Cost(model_flops=0, flops=0, traffic=0)


def layer_weights(model: ModelConfig) -> int:
    """Weights of one layer's projections."""
    attention = 2 * model.hidden_size * model.head_dim * (model.num_heads + model.num_kv_heads)
    return attention + 3 * model.hidden_size * model.intermediate_size


def head_weights(model: ModelConfig, vocab_size: int) -> int:
    """The number of weights of the output head."""
    return model.hidden_size * vocab_size


def whole_weights(model: ModelConfig, vocab_size: int) -> int:
    """Weights of all matrices: layers, embedding and, where it is not the same, the head."""
    matrices = 1 if model.tie_embeddings else 2
    return model.num_layers * layer_weights(model) + matrices * head_weights(model, vocab_size)


def adapter_weights(model: ModelConfig) -> int:
    """Weights of one agent's adapters."""
    if model.lora is None:
        return 0
    D, F = model.hidden_size, model.intermediate_size
    heads, kv_heads = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    widths = {"query": (D, heads), "key": (D, kv_heads), "value": (D, kv_heads), "output": (heads, D)}
    widths |= {"gate": (D, F), "up": (D, F), "down": (F, D)}
    return model.num_layers * sum(model.lora.rank * sum(widths[name]) for name in model.lora.target_modules)


def cost_of(work: str, config: Config, vocab_size: int, *, trained: str = "", prefill_rows: int = 1) -> Cost:
    """What a program of `programs.Program.work` costs."""
    model = config.model
    if work in ("train", "score"):
        return _rows_cost(config, vocab_size, trained if work == "train" else "")
    if work in ("train beside", "train both"):  # another model's logits beside the agent's
        other = _rows_cost(config, vocab_size, trained if work == "train both" else "")
        return _rows_cost(config, vocab_size, trained).plus(other)
    if work == "update both":
        one = cost_of("update", config, vocab_size, trained=trained)
        return one.plus(one)
    if work == "update":
        weights = adapter_weights(model) if trained == "adapters" else whole_weights(model, vocab_size)
        # Gradient, weight and both moments are read, all but the gradient written; the norm reads it again.
        return Cost(model_flops=0, flops=20 * weights, traffic=8 * MASTER * weights)
    if work == "decode":
        return _cached_cost(config, vocab_size, rows=config.rollout.slots, tokens=1, copies=0)
    if work == "prefill":
        # The rows' slots are taken out of the cache and put back.
        return _cached_cost(config, vocab_size, rows=prefill_rows, tokens=CHUNKS[-1], copies=4)
    return NOTHING


def rows_flops(
    model: ModelConfig, vocab_size: int, *, tokens: int, scored: int, seen: float, trained: str
) -> float:
    """Floating-point operations of rows: forward and, where something is trained, backward, nothing twice.

    Args:
      tokens: of the rows, without padding.
      scored: those whose probability is asked for.
      seen: pairs of a query and a key that it sees, summed over the layers.
      trained: "adapters", "all", or "" for a forward pass.
    """
    products, attention, head = _forward(model, vocab_size, tokens=tokens, scored=scored, seen=seen)
    attention_passes = 1 if not trained else 3.5  # backward: scores again, and four products
    return PASSES[trained] * (products + head) + attention_passes * attention


def _forward(
    model: ModelConfig, vocab_size: int, *, tokens: int, scored: int, seen: float
) -> tuple[float, float, float]:
    """Operations of the layers' projections, of attention's products, and of the head."""
    products = 2 * model.num_layers * layer_weights(model) * tokens
    attention = 4 * model.num_heads * model.head_dim * seen
    return products, attention, 2 * head_weights(model, vocab_size) * scored


def _rows_cost(config: Config, vocab_size: int, trained: str) -> Cost:
    """Forward over a microbatch, and where something is trained backward too."""
    model, tokens = config.model, config.batch.rows * config.batch.row_length
    seen = model.num_layers * config.batch.rows * config.batch.row_length**2 / 2
    products, attention, head = _forward(model, vocab_size, tokens=tokens, scored=tokens, seen=seen)
    passes = PASSES[trained]
    model_flops = rows_flops(model, vocab_size, tokens=tokens, scored=tokens, seen=seen, trained=trained)
    again = {"none": 0.0, "dots": 0.0, "feed_forward": 0.6, "full": 1.0}[model.remat] if trained else 0.0
    logits_again = head if trained else 0.0  # the head's backward pass makes its logits again
    flops = model_flops + again * products + (again == 1) * attention + logits_again
    return Cost(
        model_flops=model_flops,
        flops=flops,
        traffic=_rows_traffic(config, vocab_size, tokens, passes + (again > 0), trained),
    )


def _rows_traffic(config: Config, vocab_size: int, tokens: int, passes: float, trained: str) -> float:
    model, mesh = config.model, config.mesh
    width = WIDTH[model.dtype]
    weights = whole_weights(model, vocab_size)
    groups = mesh.data * mesh.fsdp  # each gathers all weights of its tensor share: written, then read
    moved = 2 * width * weights * passes * groups
    if trained:
        own = adapter_weights(model) if trained == "adapters" else weights
        moved += 2 * MASTER * own * groups + 8 * MASTER * own  # gradients, then the update
    heads = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    # What goes in and comes out of a layer's projections, norms and sums.
    layer = (8 * model.hidden_size + 2 * heads + 4 * model.intermediate_size) * width
    logits = 2 * MASTER * vocab_size * (3 if trained else 1)
    return moved + tokens * (passes * model.num_layers * layer + logits)


def _cached_cost(config: Config, vocab_size: int, *, rows: int, tokens: int, copies: int) -> Cost:
    """`tokens` new ones of `rows` slots over caches of full length: attention reads all of them."""
    model, length = config.model, config.rollout.max_tokens
    width = WIDTH[model.dtype]
    flops = 2 * model.num_layers * layer_weights(model) * rows * tokens
    flops += 4 * model.num_layers * model.num_heads * model.head_dim * rows * tokens * length
    flops += 2 * head_weights(model, vocab_size) * rows
    held = max(model.num_kv_heads, config.rollout.tensor)  # a head is on every chip that reads it
    cache = 2 * model.num_layers * held * model.head_dim * length * rows * width
    weights = (model.num_layers * layer_weights(model) + head_weights(model, vocab_size)) * width
    logits = 8 * MASTER * vocab_size * rows
    traffic = weights + (1 + copies) * cache + logits
    return Cost(model_flops=flops, flops=flops, traffic=traffic)
