"""Rematerialisation: named policies for what a block's backward pass recomputes instead of keeping."""

import flax.linen as nn
import jax

# Names that the block gives to what may be kept (`jax.ad_checkpoint.checkpoint_name`).
QKV = "qkv"  # queries, keys and values, before norm and rotation
ATTENDED = "attended"  # output and normaliser of the attention
HIDDEN = "hidden"  # both inner products of the feed-forward

KEPT: dict[str, tuple[str, ...]] = {
    "dots": (QKV, ATTENDED, HIDDEN),
    "feed_forward": (QKV, ATTENDED),
    "full": (),
}


def remat(block: type[nn.Module], policy: str) -> type[nn.Module]:
    """Wrap the block in a rematerialisation policy of `ModelConfig.remat`; "none" keeps everything."""
    if policy == "none":
        return block
    kept = jax.checkpoint_policies.save_only_these_names(*KEPT[policy])
    return nn.remat(block, prevent_cse=False, policy=kept)
