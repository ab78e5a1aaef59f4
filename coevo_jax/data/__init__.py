"""Data: experts, pairs and trajectories, from files to packed microbatches."""
