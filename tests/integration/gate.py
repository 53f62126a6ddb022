"""A server that holds every request back until it is told to answer."""

import http.server
import threading


class Gate:
    """Answers 200 to whatever comes, once opened. `arrived` are the paths of the requests that came."""

    def __init__(self):
        self.arrived = []
        self._open = threading.Event()
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                gate.arrived.append(self.path)
                gate._open.wait(60)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def open(self):
        self._open.set()

    def close(self):
        self.open()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
