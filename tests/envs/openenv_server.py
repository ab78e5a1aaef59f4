"""A small server of OpenEnv's protocol for tests: a guessing game, which can be made to misbehave.

The form of its answers is that of OpenEnv 0.10's own server, as seen on the wire.
"""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

TEXT = {
    "properties": {"metadata": {"type": "object"}, "message": {"type": "string"}},
    "required": ["message"],
}
NUMBER = {"properties": {"guess": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["guess"]}
SHOWN = {"properties": {"text": {"type": "string"}, "done": {}, "reward": {}}, "additionalProperties": False}


class Guess:
    """Find a number of 0 to 9 that the seed names; every guess is answered by higher, lower or right."""

    def __init__(self, server):
        self.server, self.said = server, []

    def reset(self, data):
        self.server.resets += 1
        named = data.get("seed", data.get("index", 0))
        self.secret = (self.server.resets if self.server.ignores_seeds else named) * 7 % 10
        self.said = ["Find a number from 0 to 9."]
        return self.shown(None, False)

    def step(self, data):
        field, kind = self.server.field
        if set(data) - {"metadata"} != {field} or not isinstance(data[field], kind):
            problem = {"type": "missing", "loc": [field], "msg": "Field required"}
            return error("VALIDATION_ERROR", "Invalid message", errors=[problem])
        if not str(data[field]).isdigit():
            self.said.append("That is no number.")
            return self.shown(None, False)
        guess = int(data[field])
        near = 1 - min(abs(guess - self.secret), 10) / 10
        self.said.append("right" if guess == self.secret else "higher" if guess < self.secret else "lower")
        null = self.server.null_until_end and guess != self.secret
        return self.shown(None if null else near, guess == self.secret)

    def shown(self, reward, done):
        text = "\n".join(self.said) if self.server.repeats else self.said[-1]
        return {
            "type": "observation",
            "data": {"observation": {"text": text}, "reward": reward, "done": done},
        }


def error(code, message, **more):
    return {"type": "error", "data": {"message": message, "code": code} | more}


class Server(ThreadingHTTPServer):
    """The server with its knobs; counts what it saw."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, **knobs):
        super().__init__(("127.0.0.1", 0), Handler)
        self.schema = {"action": NUMBER, "observation": SHOWN}
        self.capacity, self.splits = 64, None
        self.ignores_seeds = self.repeats = self.null_until_end = self.refuses_silently = False
        self.at_step = lambda connection, number: None  # may answer in the game's place, or not at all
        self.__dict__ |= knobs
        action = self.schema["action"] if isinstance(self.schema, dict) else {}
        properties = action.get("properties", {})
        name = next((name for name in properties if name != "metadata"), "")
        self.field = name, str if properties.get(name, {}).get("type") == "string" else int
        self.resets = self.most = 0
        self.sessions, self.sockets, self.lock = 0, [], threading.Lock()
        self.url = f"ws://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """Clients may vanish."""

    def kill(self):
        """Stop as a process that is killed: every socket breaks."""
        self.shutdown()
        self.server_close()
        for one in self.sockets:
            try:
                one.shutdown(2)
            except OSError:
                continue


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.serve_socket()
        elif self.path == "/schema":
            self.answer(200, self.server.schema)
        elif self.path == "/list_environments":
            self.answer(200, ["guess"])
        elif self.path == "/guess/splits" and self.server.splits is not None:
            self.answer(200, [{"name": name, "type": kind} for name, kind, _ in self.server.splits])
        else:
            self.answer(501 if self.path.startswith("/guess") else 404, {"detail": "not supported"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        counts = {name: count for name, _, count in self.server.splits}
        self.answer(200, {"num_tasks": counts[body["split"]]})

    def answer(self, status, content):
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def serve_socket(self):
        protocol = ServerProtocol(max_size=None)
        head = "".join(f"{key}: {value}\r\n" for key, value in self.headers.items())
        protocol.receive_data(f"{self.requestline}\r\n{head}\r\n".encode())
        [request] = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        Connection(self.server, self.connection, protocol).serve()
        self.close_connection = True


class Connection:
    """One socket and its session."""

    def __init__(self, server, socket, protocol):
        self.server, self.socket, self.protocol = server, socket, protocol
        self.game, self.steps = Guess(server), 0

    def send(self, message):
        self.protocol.send_text(message if isinstance(message, bytes) else json.dumps(message).encode())
        self.flush()

    def flush(self):
        for data in self.protocol.data_to_send():
            if data:
                self.socket.sendall(data)

    def serve(self):
        server = self.server
        server.sockets.append(self.socket)
        self.flush()
        with server.lock:
            full = server.sessions >= server.capacity
            server.sessions += not full
            server.most = max(server.most, server.sessions)
        try:
            if full:
                if not server.refuses_silently:
                    self.send(error("CAPACITY_REACHED", "Server at capacity.", max_sessions=server.capacity))
                self.protocol.send_close(1000)
                self.flush()
                return
            while data := self.socket.recv(2**16):
                self.protocol.receive_data(data)
                for frame in self.protocol.events_received():
                    if frame.opcode is Opcode.TEXT:
                        self.reply(json.loads(frame.data))
                self.flush()
                if self.protocol.close_expected():
                    return
        except OSError:
            return
        finally:
            with server.lock:
                server.sessions -= not full
            self.socket.close()

    def reply(self, message):
        kind, data = message["type"], message.get("data", {})
        if kind == "step":
            self.steps += 1
            taken = self.server.at_step(self, self.steps)
            if taken is not None:
                return
        answers = {"reset": self.game.reset, "step": self.game.step, "state": lambda data: STATE}
        self.send(answers[kind](data) if kind in answers else error("UNKNOWN_TYPE", kind))


STATE = {"type": "state", "data": {"episode_id": None, "step_count": 0}}


@contextmanager
def serving(**knobs):
    """A server in a thread, gone afterwards."""
    server = Server(**knobs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.kill()


def wait_until(true, seconds=5.0):
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert true()
