"""Doors to the commands of `coevo_jax.commands`, and the scripts around them."""
