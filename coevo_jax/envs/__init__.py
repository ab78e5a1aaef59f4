"""Environments an agent plays in: one protocol, one package per environment, one registry of names."""
