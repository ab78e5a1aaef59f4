"""Environments behind a server that speaks OpenEnv's protocol (version 0.10), over its WebSocket.

`session` holds one socket and one episode, `standing` what all sessions of a server share, `server` reads
what the server tells by HTTP, `actions` and `observations` turn text into records and back.
"""
