"""Builders of what is learned from trajectories, one file each: pure functions on the host.

A builder is `builder(material, **options)`, where its options are keyword-only parameters with types, which a
recipe sets by name. It yields preferences; or trajectories, and imitations that weigh their turns. Limits,
duplicates and the weights of sources are the caller's.
"""
