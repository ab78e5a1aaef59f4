"""A served agent for tests: the stored toy run's, behind a real socket of this machine."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from openai import OpenAI

from coevo_jax.openai_server.http_server import ApiServer
from coevo_jax.openai_server.service import Service
from coevo_jax.stored.serve import ServedAgent, serve

MODEL = "toy"


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers."""

    served: ServedAgent
    server: ApiServer
    service: Service
    client: OpenAI

    @property
    def url(self) -> str:
        return self.server.url


@contextmanager
def running(served: ServedAgent, *, most_waiting: int = 64) -> Iterator[Running]:
    """Serve in threads for as long as the context lasts; then it ends as a signal ends it."""
    ended, started = threading.Event(), threading.Event()
    there: list[tuple[ApiServer, Service]] = []

    def ready(server: ApiServer, service: Service) -> None:
        there.append((server, service))
        started.set()

    options = {"name": MODEL, "host": "127.0.0.1", "port": 0, "most_waiting": most_waiting}
    thread = threading.Thread(
        target=serve, args=(served,), kwargs={**options, "asked": ended.is_set, "ready": ready}
    )
    thread.start()
    assert started.wait(120)
    [(server, service)] = there
    with OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        try:
            yield Running(served=served, server=server, service=service, client=client)
        finally:
            ended.set()
            thread.join(60)
    assert not thread.is_alive()


def post(url: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """Send bytes as they are; the status and the answer's bytes."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
