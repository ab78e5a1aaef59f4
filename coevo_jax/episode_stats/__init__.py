"""What episodes amount to: pure functions of trajectories."""
