"""Penstock's limits for a service that stands behind something else (docs/DECISIONS.md).

    with Charge("http://127.0.0.1:8081", caller="team-a", plan="free", tokens=1200) as charge:
        charge.settle(tokens=work())    # Refused if it is over a limit; given back if work() raises
"""
import urllib.error
import urllib.request


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(answer.read().decode())
        self.status, self.retry_after = answer.code, int(answer.headers.get("Retry-After", 0))


class Charge:
    def __init__(self, url, **asked):
        self._url, self._receipt, self._open = url, None, True
        self._ask("POST", "/decide", asked)

    def keep(self):  # call it each 5 s while the work takes long, or what it holds of `concurrency` lapses
        self._ask("PUT", "/settle", {})

    def settle(self, **used):  # tokens=, gpu_ms=; what is not named was used as asked for
        self._open = self._receipt and self._ask("POST", "/settle", used)

    def undo(self):
        self._open = self._receipt and self._ask("DELETE", "/settle", {})

    def _ask(self, method, path, words):
        headers = {"Penstock-" + name.replace("_", "-"): str(value) for name, value in words.items()}
        headers |= {"Penstock-Receipt": self._receipt} if self._receipt else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url + path, b"", headers, method=method), timeout=5) as answer:
                self._receipt = answer.headers.get("Penstock-Receipt", self._receipt)
        except urllib.error.HTTPError as answer:
            raise Refused(answer) from None

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        if self._open:
            self.undo() if failed else self.settle()
