"""A caller's connection to penstockd for asyncio, beside the blocking one of tests/integration/wire.py."""
import asyncio
import json
import struct
from pathlib import Path

import planted
import wire

ASK = 15
wire.TAGS.setdefault("prefer", 36)
wire.TAGS.setdefault("idempotency_key", 37)
NAMES = {tag: name for name, tag in wire.TAGS.items()}


class Refused(Exception):
    """FAILED: its status, code and message."""

    def __init__(self, fields):
        self.status, self.retry_after_s = fields.get("status", 0), fields.get("retry_after_s", 0)
        super().__init__(f"{self.status} {fields.get('code')} {fields.get('message')}")


def fields_of(payload):
    fields, at = {}, 0
    while at < len(payload):
        tag, size = struct.unpack_from("<II", payload, at)
        value = payload[at + 8:at + 8 + size]
        name = NAMES.get(tag, tag)
        fields[name] = struct.unpack("<q", value)[0] if name in wire.NUMBERS else value.decode(errors="replace")
        at += 8 + size
    return fields


class Line:
    """One question at a time. OSError or EOFError: the connection broke."""

    def __init__(self, reader, writer):
        self._reader, self._writer, self._id = reader, writer, 0
        self.duplicate = False  # what was promised last had been promised before

    @classmethod
    async def open(cls, path, role=wire.CALLER):
        line = cls(*await asyncio.open_unix_connection(str(path)))
        line._writer.write(wire.frame(wire.HELLO, version=1, role=role))
        line.path = path
        return line

    def close(self):
        self._writer.close()

    async def _frame(self):
        length, kind, id = struct.unpack("<IB3xQ", await self._reader.readexactly(16))
        return kind, id, await self._reader.readexactly(length)

    async def _exchange(self, kind, **fields):
        """(status, job id, body) of one question."""
        self._id += 1
        self._writer.write(wire.frame(kind, self._id, **fields))
        status, job, body = 0, None, b""
        while True:
            kind, id, payload = await self._frame()
            if kind == wire.GOODBYE:
                raise EOFError(fields_of(payload).get("message"))
            if id != self._id:
                continue
            if kind == wire.ACCEPTED:
                job = fields_of(payload)["job_id"]
            elif kind == wire.HEAD:
                fields = fields_of(payload)
                status, self.duplicate = fields["status"], fields.get("duplicate") == 1
                if "file" in fields:
                    body = Path(fields["file"]).read_bytes()
            elif kind == wire.CHUNK:
                body += payload
            elif kind == wire.FAILED:
                raise Refused(fields_of(payload))
            elif kind == wire.DONE:
                return status, job, body.decode()

    async def promise(self, owner, key, queue="default", body=None, path="/work", content_type="text/plain"):
        """The id of the job that is promised, or was before."""
        planted.plant(owner, key)
        _, job, _ = await self._exchange(
            wire.SUBMIT, queue=queue, owner=owner, method="POST", path=path, content_type=content_type,
            prefer="respond-async", idempotency_key=f'"{key}"', body=body or key)
        return job

    async def wait_for_answer(self, owner, body):
        """The status of the answer to a job that is not promised."""
        planted.plant(owner, body)
        status, _, _ = await self._exchange(wire.SUBMIT, owner=owner, method="POST", path="/work", body=body)
        return status

    async def cancel(self, owner, path):
        status, _, _ = await self._exchange(ASK, owner=owner, method="DELETE", path=path)
        return status

    async def ask(self, owner, path):
        """(status, body) of a GET about jobs."""
        try:
            status, _, body = await self._exchange(ASK, owner=owner, method="GET", path=path)
        except Refused as refused:
            return refused.status, json.dumps(str(refused))
        return status, body

    async def status(self):
        tool = await Line.open(self.path, wire.TOOL)
        tool._writer.write(wire.frame(wire.STATUS))
        _, _, payload = await tool._frame()
        tool.close()
        return json.loads(fields_of(payload)["json"] if "json" in fields_of(payload) else fields_of(payload)["body"])
