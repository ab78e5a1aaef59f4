"""The phases of a run. Each can be repeated: it reads committed files, works, and commits again.

Killed anywhere, a phase goes on from its last commit and ends in the same numbers.
"""
