"""A small HTTP client: one connection at a time, answers whole or as they come."""

import http.client
import json
import socket

import planted


class Response:
    """An answer that was read to its end."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # http.client.HTTPMessage: names in any case
        self.body = body

    def json(self):
        return json.loads(self.body)

    def text(self):
        return self.body.decode()

    def events(self):
        """The data of each server-sent event."""
        return [line[6:] for line in self.text().split("\n") if line.startswith("data: ")]

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} {self.body[:300]!r}>"


class Stream:
    """An answer that is still coming. close() leaves in the middle of it."""

    def __init__(self, connection, response):
        self._connection = connection
        self._response = response
        self.status = response.status
        self.headers = response.headers

    def events(self):
        """Yields the data of each server-sent event as it arrives."""
        for line in self._response:
            if line.startswith(b"data: "):
                yield line[6:].rstrip(b"\n").decode()

    def next_event(self):
        return next(self.events())

    def rest(self):
        return self._response.read()

    def close(self):
        # close() alone leaves the socket to the response, which still refers to it.
        if self._connection.sock:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self._connection.close()


class Client:
    """Speaks to one server. A connection is kept from one request to the next."""

    def __init__(self, port, timeout=60, address=None):
        """`address` is the client's own, such as 127.0.0.2."""
        source = (address, 0) if address else None
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout, source_address=source)

    def send(self, method, path, headers=None, body=None):
        """The answer's http.client.HTTPResponse, its body still unread."""
        headers = dict(headers or {})
        planted.note(headers, body)
        if isinstance(body, dict):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        if isinstance(body, str):
            body = body.encode()
        self._connection.request(method, path, body, headers)
        return self._connection.getresponse()

    def request(self, method, path, headers=None, body=None):
        response = self.send(method, path, headers, body)
        return Response(response.status, response.headers, response.read())

    def stream(self, method, path, headers=None, body=None):
        return Stream(self._connection, self.send(method, path, headers, body))

    def close(self):
        self._connection.close()


def exchange(port, request):
    """Sends raw bytes on a connection of their own, and returns every byte that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while True:
            more = connection.recv(65536)
            if not more:
                return answer
            answer += more
