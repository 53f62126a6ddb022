"""A name server of a test's own, over UDP at a free port: of its names it knows the IPv4 addresses, of others nothing."""

import socketserver
import struct
import threading


class FalseDns:
    def __init__(self, names):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                query, sock = self.request
                labels, at = [], 12
                while query[at]:
                    labels.append(query[at + 1:at + 1 + query[at]].decode())
                    at += 1 + query[at]
                question, kind = query[12:at + 5], struct.unpack(">H", query[at + 1:at + 3])[0]
                name = ".".join(labels)
                ip = names.get(name) if kind == 1 else None
                header = query[:2] + struct.pack(">HHHHH", 0x8180 if name in names else 0x8183, 1, 1 if ip else 0, 0, 0)
                answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes(map(int, ip.split("."))) if ip else b""
                sock.sendto(header + question + answer, self.client_address)

        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
