"""Serve an agent, and say where."""

import argparse
import time

from coevo_jax.openai_server.http_server import ApiServer, is_loopback
from coevo_jax.openai_server.service import Service
from coevo_jax.progress import CONSOLE
from coevo_jax.stored.serve import ServedAgent, serve_stored


def serve(args: argparse.Namespace) -> None:
    """Serve as the command line asks, until a signal ends it."""
    started = time.monotonic()

    def ready(served: ServedAgent, server: ApiServer, service: Service) -> None:
        engine = served.engine
        if not is_loopback(str(server.server_address[0])):
            _say(f"warning: whoever reaches {server.url} can use it: there are no keys")
        if served.mark:
            _say(f"the user's first message is put under the mark {served.mark!r}")
        _say(
            f"serving {service.name} at {server.url}: the {args.agent} agent of checkpoint "
            f"{served.checkpoint}, {engine.slots} slots of {engine.config.max_tokens} tokens"
        )

    batcher = serve_stored(
        args.run,
        agent=args.agent,
        name=args.name,
        host=args.host,
        port=args.port,
        slots=args.slots,
        most_waiting=args.waiting,
        mark=args.mark,
        ready=ready,
    )
    _say(f"ended: {batcher.tokens} tokens written in {time.monotonic() - started:.0f} s")


def _say(words: str) -> None:
    CONSOLE.print(words, soft_wrap=True, markup=False, highlight=False)
