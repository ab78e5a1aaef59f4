"""TextWorld: text games made offline or read from a folder, their walkthroughs as experts, score as reward.

Dev is the seen split: other games of the same families and sizes. Test is unseen: other games too, and food
and recipes that no training game has. Whether a game is of a split is decided by its content, so no two
splits share one.
"""
