"""The model: a decoder-only transformer, its attention, adapters and KV cache."""
