#!/usr/bin/env bash
# TensorBoard 2.21.0 that has read an event file never goes on to a newer one once the file it read is deleted; it goes
# on where the file is emptied instead.
#
# Behaviour seen: a reader that has shown the steps 1, 2, 3 of the first file shows 1, 2, 3 for ever after that file is
# replaced by a newer one with 1, 2, 8, whatever is appended there, while a reader that starts anew shows 1, 2, 8. With
# the first file emptied, it shows what the newer one has.
#
# Why it matters here: after a resume, steps that were never committed must leave the curves of a TensorBoard that is
# open. The event file of the process before is emptied, and only older ones are deleted; the new one begins with a
# session start at step 0, at which TensorBoard drops what it had.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorboard==2.21.0 tensorboardX==2.6.5 setuptools==80.9.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'CHECK'
import os
import tempfile
from pathlib import Path

import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


def write(path, steps, start=False):
    writer = EventsWriter(str(path))
    if start:
        writer.write_event(Event(step=0, session_log=SessionLog(status=SessionLog.START)))
    for step in steps:
        value = Summary.Value(tag="loss", simple_value=float(step))
        writer.write_event(Event(wall_time=float(step), step=step, summary=Summary(value=[value])))
    writer.close()


def shown(reader):
    reader.Reload()
    return [event.step for event in reader.Scalars("loss")]


found = {}
for what in ("deleted", "emptied"):
    logs = Path(tempfile.mkdtemp(dir="."))
    write(logs / "events.out.tfevents.0000000001.a", [1, 2, 3])
    reader = EventAccumulator(str(logs))
    before = shown(reader)
    [old] = logs.iterdir()
    write(logs / "events.out.tfevents.0000000002.b", [1, 2, 8], start=True)
    old.unlink() if what == "deleted" else os.truncate(old, 0)
    after = shown(reader)
    write(logs / "events.out.tfevents.0000000003.c", [9])
    found[what] = before, after, shown(reader), shown(EventAccumulator(str(logs)))
    print(tensorboard.__version__, what, *found[what])

assert found["deleted"] == ([1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 8, 9]), "it goes beyond a deleted file now"
assert found["emptied"] == ([1, 2, 3], [1, 2, 8], [1, 2, 8, 9], [1, 2, 8, 9]), "an emptied file is read otherwise"
CHECK
