"""The HTTP side: the standard library's server, a thread for each connection, everything bounded.

It reads requests of a few fields for one model, and a thread that waits for the device costs nothing; a web
framework would bring half a dozen packages for that. `http.server` parses HTTP, nothing here does.
"""

import ipaddress
import itertools
import json
import select
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from coevo_jax.openai_server.refusal import Refusal
from coevo_jax.openai_server.service import Pieces, Service

MOST_BYTES = 8 * 2**20  # of a request's body
DRAINED_BYTES = 4 * MOST_BYTES
MOST_CONNECTIONS = 256
IDLE_SECONDS = 30.0  # that a connection may be silent while the server reads from it or writes to it
GETS = ("/health", "/v1/models")
POSTS = ("/v1/chat/completions", "/v1/chat/completions/tokens", "/v1/completions", "/tokenize")


class ApiServer(ThreadingHTTPServer):
    """Listens on an address; requests go to a service."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, host: str, port: int, service: Service) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)
        self.service = service
        self.loopback = is_loopback(str(self.server_address[0]))
        self._busy, self._changed = 0, threading.Condition()
        self._places = threading.Semaphore(MOST_CONNECTIONS)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}/v1" if ":" in str(host) else f"http://{host}:{port}/v1"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While a request is being answered."""
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def stop(self, seconds: float) -> None:
        """Let answers that are on their way be sent, for a while, then listen no more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, seconds)
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name."""
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is its client's affair."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address or name."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "coevo_jax", ""
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        return

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What `http.server` itself cannot read, in the API's form."""
        self.close_connection = True
        self._send(code, Refusal(status=code, message=message or "not a request").body())

    def do_GET(self) -> None:
        self._respond(GETS, POSTS)

    def do_POST(self) -> None:
        self._respond(POSTS, GETS)

    def _respond(self, paths: tuple[str, ...], others: tuple[str, ...]) -> None:
        with self.server.answering():
            try:
                self._check(paths, others)
                answer = self._answer()
                first = None if isinstance(answer, dict) else next(answer)
            except Refusal as refusal:
                self._send(refusal.status, refusal.body())
            except (ConnectionError, TimeoutError):
                self.close_connection = True
            except Exception:
                self._fail()
            else:
                if isinstance(answer, dict):
                    self._send(200, answer)
                else:
                    self._stream(itertools.chain([first], answer), answer.close)

    def _fail(self) -> None:
        """Say that this code is at fault, to the client and to whoever runs the server."""
        traceback.print_exc()
        self.close_connection = True
        self._send(500, Refusal(status=500, message="the server failed; its own output says why").body())

    def _check(self, paths: tuple[str, ...], others: tuple[str, ...]) -> None:
        """Refuse what is no request of this API, or not meant for it.

        Raises:
          Refusal: no such path or method, or a page of another site asks through a browser.
        """
        if self.command == "POST":
            self.close_connection = self.close_connection or "Content-Length" not in self.headers
        host = self.headers.get("Host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self.server.loopback and not is_loopback(name):
            self.close_connection = True
            raise Refusal(status=403, message=f"found the host {host!r}, expected this machine's own name")
        path = self.path.partition("?")[0]
        if path in others:
            self.close_connection = True
            raise Refusal(status=405, message=f"{path} is no path of {self.command}")
        if path not in paths:
            self.close_connection = True
            raise Refusal(status=404, message=f"there is no {path}; there are {', '.join((*paths, *others))}")

    def _answer(self) -> dict[str, Any] | Pieces:
        service, path = self.server.service, self.path.partition("?")[0]
        if path == "/health":
            return {"status": "ok"}
        if path == "/v1/models":
            return service.models()
        data = self._body()
        if path == "/tokenize":
            return service.tokenize(data)
        if path == "/v1/completions":
            return service.completion(data, self._here)
        return service.chat_completion(data, self._here, by_tokens=path.endswith("/tokens"))

    def _body(self) -> Any:
        """The request's JSON.

        Raises:
          Refusal: it is too large, of another type, or no JSON.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise Refusal(status=411, message="expected a Content-Length and no Transfer-Encoding")
        if len(length) > 12 or int(length) > MOST_BYTES:
            self.close_connection = True
            self._drain(int(length[:12]))
            message = f"found a body of {length[:12]} bytes, expected at most {MOST_BYTES}"
            raise Refusal(status=413, message=message)
        raw = self.rfile.read(int(length))
        kind = self.headers.get_content_type()
        if kind != "application/json":
            raise Refusal(status=415, message=f"found a body of {kind}, expected application/json")
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise Refusal(status=400, message=f"the body is no JSON: {error}") from None

    def _drain(self, length: int) -> None:
        """Read some of a body that is refused: a client that still sends would not see why."""
        left = min(length, DRAINED_BYTES)
        while left > 0 and (read := len(self.rfile.read1(min(left, 1 << 16)))):
            left -= read

    def _here(self) -> bool:
        """Whether the client has not closed its side."""
        look = select.poll()
        look.register(self.connection, select.POLLIN)
        if not look.poll(0):
            return True
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _send(self, status: int, data: dict[str, Any]) -> None:
        raw = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, pieces: Iterator[Any], give_up: Callable[[], None]) -> None:
        """Send pieces as server-sent events; the connection's end is the answer's."""
        self.close_connection = True
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Cache-Control", "no-cache")
            self.send_header("Connection", "close")
            self.end_headers()
            for one in pieces:
                self._event(json.dumps(one))
            self._event("[DONE]")
        except Refusal as refusal:  # the head has been sent
            self._event(json.dumps(refusal.body()))
        except (ConnectionError, TimeoutError):
            return
        finally:
            give_up()

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
