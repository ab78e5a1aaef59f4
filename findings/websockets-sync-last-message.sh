#!/usr/bin/env bash
# The threaded client of websockets 17.4 drops messages that have arrived, where it cannot answer the close frame
# that came with them; its asyncio client delivers them.
#
# Behaviour seen: a server says one message, closes with 1000 and drops the connection, all at once, as a server
# does that refuses a session while the client's first request is on its way. The bytes arrive every time.
# websockets.sync.client raises ConnectionClosedOK from recv() in 70 to 83 of 100 connections, without the message;
# websockets.asyncio.client returns the message in 100 of 100. Without the reset both return it in 100 of 100.
#
# Why it matters here: an OpenEnv server at its capacity says so in its last message and closes. A client that waits
# for that word takes a full server for a broken one, now and then. Our client takes a normal close in place of the
# first answer for a refusal (coevo_jax/envs/openenv/session.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet websockets==17.4
"$folder/venv/bin/python" - <<'CHECK'
import asyncio
import socket
import struct
import threading
from importlib.metadata import version

from websockets.asyncio.client import connect as connect_asyncio
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.server import ServerProtocol
from websockets.sync.client import connect as connect_sync

TRIES = 100


def serve(listener, reset):
    while True:
        peer, _ = listener.accept()
        protocol = ServerProtocol()
        while not (events := protocol.events_received()):
            protocol.receive_data(peer.recv(65536))
        protocol.send_response(protocol.accept(events[0]))
        protocol.send_text(b"no room")
        protocol.send_close(1000)
        peer.sendall(b"".join(protocol.data_to_send()))
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()


def url(reset):
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, reset), daemon=True).start()
    return f"ws://127.0.0.1:{listener.getsockname()[1]}"


def heard_by_threads(address):
    heard = 0
    for _ in range(TRIES):
        with connect_sync(address, compression=None) as client:
            try:
                client.send("state")
            except ConnectionClosed:
                pass
            try:
                heard += client.recv(timeout=10) == "no room"
            except ConnectionClosedOK:
                pass
    return heard


async def heard_by_asyncio(address):
    heard = 0
    for _ in range(TRIES):
        async with connect_asyncio(address, compression=None) as client:
            try:
                await client.send("state")
            except ConnectionClosed:
                pass
            try:
                heard += await client.recv() == "no room"
            except ConnectionClosedOK:
                pass
    return heard


print("version                             ", version("websockets"))
dropped, orderly = url(True), url(False)
found = {
    "threads, connection dropped": heard_by_threads(dropped),
    "asyncio, connection dropped": asyncio.run(heard_by_asyncio(dropped)),
    "threads, connection closed in order": heard_by_threads(orderly),
}
for what, heard in found.items():
    print(f"{what:36} heard {heard} of {TRIES}")
lossy, *others = found.values()
assert lossy < TRIES
assert others == [TRIES, TRIES]
CHECK
