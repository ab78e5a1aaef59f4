"""An OpenAI-compatible server of a stored agent, over the engine that plays roll-outs."""
