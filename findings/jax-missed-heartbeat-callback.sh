#!/usr/bin/env bash
# jax 0.10.2: what a process is to do when it loses the coordination service cannot be written in Python.
#
# Behaviour seen:
#   - where process 0, which holds the service, dies, the others abort within milliseconds (exit code 134), in words
#     that name no process and no host;
#   - jaxlib's client takes a Python callable for that moment (missed_heartbeat_callback), but when the moment comes
#     the callable is never called: its argument, an absl::Status, cannot be converted, and the process ends by
#     "terminate called after throwing an instance of 'std::bad_cast'", with exit code 134 as before.
#
# Why it matters here: the others are to say which process was lost and that the run goes on from its last commit. So
# SIGABRT is answered by the C library's sleep (coevo_jax/hosts/processes.py), in which a thread of Python says it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
cat > "$folder/process.py" <<'PROCESS'
import os
import sys
import time

from jax._src.lib import _jax

index, port = int(sys.argv[1]), sys.argv[2]
address = f"127.0.0.1:{port}"
if index == 0:
    service = _jax.get_distributed_runtime_service(f"[::]:{port}", 2)


def called(status):
    print("CALLABLE", flush=True)
    os._exit(0)


client = _jax.get_distributed_runtime_client(address, index, missed_heartbeat_callback=called)
client.connect()
if index == 0:
    client.key_value_set("here", "0")
    client.blocking_key_value_get("there", 60_000)
    os._exit(9)  # process 0 is gone
client.blocking_key_value_get("here", 60_000)
client.key_value_set("there", "1")
time.sleep(60)
print("outlived process 0", flush=True)
PROCESS
cd "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/python process.py 0 "$port" >first 2>&1 &
code=0
venv/bin/python process.py 1 "$port" >second 2>&1 || code=$?
wait || true
echo "version            jax $(venv/bin/python -c 'import jax; print(jax.__version__)')"
echo "exit code          $code"
echo "last words         $(grep -a -o "std::bad_cast" second | head -n 1)"
echo "callable           $(grep -c CALLABLE second || true) times called"
[[ "$code" == 134 ]] && grep -a -q "std::bad_cast" second && ! grep -q CALLABLE second
