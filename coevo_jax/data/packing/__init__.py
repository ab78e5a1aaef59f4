"""From pairs and trajectories to microbatches of one fixed shape."""
