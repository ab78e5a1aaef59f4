"""Statistics of finished episodes: pure functions of trajectories."""
