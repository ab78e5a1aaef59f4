"""Builders of what is learned from trajectories, one file each: pure functions on the host.

A builder is `builder(material, **options)`, where its options are keyword-only parameters with types, which a
recipe sets by name. It yields preferences; trajectories, and imitations that weigh their turns or have a
mark; or trajectories with advantages. Limits, duplicates, the weights of sources and the rendering of marks
are the caller's. An option `marks` is known to be the marks that a builder gives.
"""
