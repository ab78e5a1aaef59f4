"""What a command does once its line is understood: imported by then alone, for jax comes with it."""
