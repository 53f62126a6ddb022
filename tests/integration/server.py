"""A model's server as a test wants it: answers what a function says, and remembers what it was asked and how much at once."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Asked:
    def __init__(self, handler, body):
        self.method, self.path, self.headers, self.body = handler.command, handler.path, handler.headers, body

    def json(self):
        return json.loads(self.body)


class ModelServer:
    """`answer(asked, reply)`: reply(body, status=200, type="application/json", **headers), or reply(pieces) of an iterator."""

    def __init__(self, answer, port=0, path=None):
        """At a port, or at a Unix socket's path."""
        self.asked, self.running, self.peak = [], 0, 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                outer.serve(self, answer)

            do_GET = do_POST

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler) if path else \
            ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"unix:{path}" if path else f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler, answer):
        asked = Asked(handler, handler.rfile.read(int(handler.headers.get("Content-Length", 0))))
        with self._lock:
            self.asked.append(asked)
            self.running += 1
            self.peak = max(self.peak, self.running)
        try:
            answer(asked, lambda *args, **kwargs: self._reply(handler, *args, **kwargs))
        except OSError:  # the worker has gone
            handler.close_connection = True
        finally:
            self._leave(handler)

    def _leave(self, handler):
        with self._lock:
            if not getattr(handler, "left", False):
                self.running -= 1
            handler.left = False

    def _reply(self, handler, body, status=200, type="application/json", **headers):
        handler.send_response(status)
        handler.send_header("Content-Type", type)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if isinstance(body, (str, bytes)):
            data = body.encode() if isinstance(body, str) else body
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            with self._lock:  # from its last byte on the server is free
                self.running, handler.left = self.running - 1, True
            handler.wfile.write(data)
            return
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in body:
            data = piece.encode() if isinstance(piece, str) else piece
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            handler.wfile.flush()
        with self._lock:
            self.running, handler.left = self.running - 1, True
        handler.wfile.write(b"0\r\n\r\n")


def completion(text="Hi.", prompt_tokens=6, completion_tokens=2):
    """What OpenAI's API calls a chat completion."""
    return {"id": "x", "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
                      "total_tokens": prompt_tokens + completion_tokens}}


def event(**fields):
    return f"data: {json.dumps(fields)}\n\n"


def word(text, finish=None):
    return event(id="x", object="chat.completion.chunk", choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


def stream(words=("Hi", "."), usage=(6, 2)):
    """The events of one, as they come where the usage was asked for."""
    for text in words:
        yield word(text)
    yield event(id="x", object="chat.completion.chunk", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield event(id="x", object="chat.completion.chunk", choices=[],
                usage={"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)})
    yield "data: [DONE]\n\n"
