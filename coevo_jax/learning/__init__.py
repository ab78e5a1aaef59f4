"""Learning: losses, the objective and the optimizer step; pure functions."""
