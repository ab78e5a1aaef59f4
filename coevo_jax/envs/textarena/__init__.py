"""TextArena's games in this process: single-player ones, and two-player ones against a scripted opponent.

TextArena: arXiv 2504.11442; the package `textarena` is an extra (requirements-textarena.txt).
"""
