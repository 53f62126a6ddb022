"""A line between Nginx and penstockd that can be cut, or held, at the worst moment: a promise is on disk, and ACCEPTED is under way."""

import os
import socket
import struct
import threading

from wire import ACCEPTED


class Cut:
    """Listens on `path`, and passes on what is said to and by the penstockd at `target`. Its status page is found beside `path`."""

    def __init__(self, path, target):
        self.target = str(target)
        self.cuts = False                 # connections are closed where their ACCEPTED would have been passed on
        self.holds = False                # what comes from ACCEPTED on waits until the caller has gone
        self.accepted = threading.Event()  # one was cut or is held
        self.times = 0                    # that it happened
        self.left = threading.Event()     # the caller of one that is held has gone
        for page in (".status", ".metrics"):
            os.symlink(self.target + page, str(path) + page)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        os.chmod(path, 0o666)
        self._listener.listen(64)
        self._sockets = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        self._end(self._listener)
        self._threads[0].join()
        for each in self._sockets:
            self._end(each)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._sockets + [self._listener]:
            each.close()

    @staticmethod
    def _end(connection):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _accept(self):
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            self._sockets += [near, far]
            try:
                far.connect(self.target)
            except OSError:
                self._end(near)
                continue
            gone = threading.Event()  # whoever is near
            for act in ((self._up, near, far, gone), (self._down, far, near, gone)):
                self._threads.append(threading.Thread(target=act[0], args=act[1:]))
                self._threads[-1].start()

    def _up(self, near, far, gone):
        try:
            while data := near.recv(65536):
                far.sendall(data)
        except OSError:
            pass
        gone.set()
        self._end(far)

    def _down(self, far, near, gone):
        kept = b""
        try:
            while data := far.recv(65536):
                kept += data
                while len(kept) >= 16 and len(kept) >= (size := 16 + struct.unpack_from("<I", kept)[0]):
                    if kept[4] == ACCEPTED and (self.cuts or self.holds):
                        self.times += 1
                        self.accepted.set()
                        if self.cuts:
                            self._end(near)
                            self._end(far)
                            return
                        gone.wait(20) and self.left.set()
                    near.sendall(kept[:size])
                    kept = kept[size:]
        except OSError:
            pass
        self._end(near)
