"""ALFWorld: its downloaded text games as tasks, one environment per split of the download.

Dev is the seen split (folder valid_seen: rooms that training has, other tasks), test the unseen one (folder
valid_unseen: rooms that training has not).
"""
