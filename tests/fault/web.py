"""A caller's connection to Nginx, with the same questions as Line's."""
import asyncio
import json

from line import Refused


class Web:
    """One question at a time. OSError or EOFError: the connection broke, or Nginx lost the one behind it."""

    def __init__(self, reader, writer):
        self._reader, self._writer, self._ended = reader, writer, False
        self.duplicate = False  # what was promised last had been promised before

    @classmethod
    async def open(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def close(self):
        self._writer.close()

    async def _exchange(self, method, path, owner, body="", **headers):
        """(status, headers, body)."""
        if self._ended:
            raise EOFError("Nginx has ended the connection, as it said it would")
        lines = [f"{method} {path} HTTP/1.1", "Host: storm", f"Authorization: {owner}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        got = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        self._ended = got.get("connection") == "close"
        return int(head[0].split()[1]), got, (await self._body(got)).decode()

    async def _body(self, headers):
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return body

    async def promise(self, owner, key, body, path, content_type):
        """The id of the job that is promised, or was before."""
        status, headers, body = await self._exchange(
            "POST", path, owner, body, Prefer="respond-async", Idempotency_Key=f'"{key}"', Content_Type=content_type)
        if status in (502, 504):
            raise EOFError(f"Nginx says {status}")
        if status != 202:
            raise Refused({"status": status, "message": body})
        self.duplicate = headers.get("penstock-duplicate") == "true"
        return json.loads(body)["id"]

    async def wait_for_answer(self, owner, body, path, content_type):
        """(status, body) of the answer to a job that is not promised."""
        status, _, answer = await self._exchange("POST", path, owner, body, Content_Type=content_type)
        return status, answer

    async def ask(self, owner, path):
        """(status, body) of a GET about jobs."""
        status, _, body = await self._exchange("GET", f"/jobs{path}", owner)
        if status in (502, 504):
            raise EOFError(f"Nginx says {status}")
        return status, body
