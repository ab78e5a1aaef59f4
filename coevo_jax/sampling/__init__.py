"""Sampling: the slot engine that prefills and decodes on the device."""
