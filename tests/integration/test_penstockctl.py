"""penstockctl against a server of the test's own that stands where the edge's console would be."""

import http.server
import json
import socket
import socketserver
import subprocess
import threading
import time

import pytest

from processes import BUILD, environment, sanitizer_reports
from waiting import Port

KEY = "Bearer sk-secret-1"
LIMITS = {"key": "9f3a5c0b7d1e2f48", "limits": [
    {"zone": "edge", "name": "free-rate", "unit": "requests", "algorithm": "token_bucket", "limit": 10, "burst": 5, "used": 3,
     "remaining": 2, "reset_seconds": 41, "live": True},
    {"zone": "edge", "name": "site", "unit": "requests", "algorithm": "concurrency", "limit": 2000, "used": 0,
     "remaining": 2000, "reset_seconds": 0, "live": False}]}


class Console:
    """Answers every request with `status`, `headers` and `body`, and remembers what it was asked."""

    def __init__(self, unix_socket=None):
        self.status, self.headers, self.body = 200, {}, json.dumps(LIMITS)
        self.requests = []  # (method, path, headers)
        self.delay = 0  # seconds before it answers
        console = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_any(self):
                console.requests.append((self.command, self.path, self.headers))
                console.stopping.wait(console.delay)
                body = console.body.encode() if isinstance(console.body, str) else console.body
                try:
                    self.send_response(console.status)
                    for name, value in {"Content-Length": len(body), **console.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except ConnectionError:
                    pass  # it has heard enough

            do_GET = do_DELETE = handle_any

            def address_string(self):
                return "caller"

            def log_message(self, *_):
                pass

        class UnixServer(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self.stopping = threading.Event()
        if unix_socket:
            self.server = UnixServer(str(unix_socket), Handler)
            self.url = "http://edge.example/console"
        else:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.url = f"http://127.0.0.1:{self.server.server_address[1]}/console"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self):
        self.stopping.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def console():
    server = Console()
    yield server
    server.close()


@pytest.fixture
def ctl(folder):
    """Runs penstockctl: ctl("limits", KEY, ...)."""
    def run(*arguments, stdin=None, **variables):
        return subprocess.run([BUILD / "penstockctl", *map(str, arguments)], capture_output=True, text=True, input=stdin,
                              env={**environment(folder), **variables}, timeout=30)
    yield run
    assert not sanitizer_reports(folder)


def test_the_key_goes_in_a_header_and_nowhere_else(console, ctl):
    shown = ctl("limits", KEY, "--url", console.url)
    assert shown.returncode == 0, shown.stderr
    ((method, path, headers),) = console.requests
    assert (method, path) == ("GET", "/console/limits")
    assert headers.get_all("Penstock-Key") == [KEY]
    assert [name for name, value in headers.items() if "sk-secret" in value] == ["Penstock-Key"]
    assert "sk-secret" not in shown.stdout + shown.stderr


def test_live_counters_are_a_table_and_all_shows_the_others(console, ctl):
    lines = ctl("limits", KEY, "show", "--url", console.url).stdout.splitlines()
    assert lines[0] == "key 9f3a5c0b7d1e2f48"
    assert lines[2].split() == ["ZONE", "NAME", "UNIT", "ALGORITHM", "USED", "LIMIT", "BURST", "LEFT", "RESETS", "IN"]
    assert lines[3].split() == ["edge", "free-rate", "requests", "token_bucket", "3", "10", "5", "2", "41", "s"]
    assert len(lines) == 4
    assert "site" in ctl("limits", KEY, "--all", "--url", console.url).stdout
    console.body = '{"key":"9f3a","limits":[]}'
    assert "nothing is counted for this key" in ctl("limits", KEY, "--url", console.url).stdout


def test_json_is_passed_on_as_it_came_once_it_is_known_to_be_json(console, ctl):
    console.body = '{ "key":"9f3a",\n "limits":[] }'
    assert ctl("limits", KEY, "--json", "--url", console.url).stdout == console.body + "\n"
    console.body = '{"key":"9f3a","limits":[}'
    broken = ctl("limits", KEY, "--json", "--url", console.url)
    assert broken.returncode == 1 and broken.stdout == "" and "no JSON" in broken.stderr


def test_reset_deletes(console, ctl):
    console.body = '{"key":"9f3a","reset":["free-rate","ip"]}'
    done = ctl("limits", KEY, "reset", "--zone", "ed ge&", "--url", console.url + "/")
    assert (done.returncode, done.stdout) == (0, "key 9f3a: reset free-rate, ip\n")
    ((method, path, headers),) = console.requests
    assert (method, headers["Penstock-Key"]) == ("DELETE", KEY)
    assert path.startswith("/console/limits?zone=ed") and path.count("&") == 0 and " " not in path


def test_a_dash_reads_the_key_from_the_first_line_of_stdin(console, ctl):
    assert ctl("limits", "-", "--url", console.url, stdin=KEY + "\nnot this\n").returncode == 0
    assert console.requests[0][2]["Penstock-Key"] == KEY


def test_the_environment_names_the_console_and_the_option_comes_first(console, ctl):
    assert ctl("limits", KEY, PENSTOCK_CONSOLE=console.url).returncode == 0
    assert ctl("limits", KEY, "--url", console.url, PENSTOCK_CONSOLE="http://127.0.0.1:1/console").returncode == 0
    assert len(console.requests) == 2


def test_no_proxy_gets_to_see_the_key(console, ctl):
    elsewhere = Console()
    proxy = elsewhere.url.removesuffix("/console")
    assert ctl("limits", KEY, "--url", console.url, http_proxy=proxy, ALL_PROXY=proxy, all_proxy=proxy).returncode == 0
    elsewhere.close()
    assert elsewhere.requests == [] and len(console.requests) == 1


def test_offenders_are_a_table(console, ctl):
    console.body = '{"offenders":[{"key":"9f3a","limit":"free-rate","refused":1234}]}'
    shown = ctl("offenders", "--url", console.url)
    assert shown.stdout.split() == ["KEY", "LIMIT", "REFUSED", "9f3a", "free-rate", "1234"]
    ((method, path, headers),) = console.requests
    assert (method, path) == ("GET", "/console/offenders") and "Penstock-Key" not in headers


def test_the_edge_may_be_reached_through_a_unix_socket(folder, ctl):
    server = Console(folder / "edge.sock")
    shown = ctl("limits", KEY, "--unix-socket", folder / "edge.sock", "--url", server.url)
    server.close()
    assert shown.returncode == 0, shown.stderr
    assert server.requests[0][1] == "/console/limits" and server.requests[0][2]["Host"] == "edge.example"


def test_a_problem_is_told_in_the_edges_words_with_the_url(console, ctl):
    console.status, console.headers = 404, {"Content-Type": "application/problem+json"}
    console.body = '{"title":"Not Found","status":404,"detail":"There is no zone \'x\'. Zones: edge."}'
    done = ctl("limits", KEY, "--url", console.url)
    assert done.returncode == 1 and done.stdout == ""
    assert f"{console.url}/limits answered 404: There is no zone 'x'. Zones: edge." in done.stderr
    console.body = "<html>"
    assert "--url" in ctl("limits", KEY, "--url", console.url).stderr


def test_a_redirect_is_not_followed(console, ctl):
    elsewhere = Console()
    console.status, console.headers, console.body = 302, {"Location": elsewhere.url + "/limits"}, ""
    done = ctl("limits", KEY, "--url", console.url)
    elsewhere.close()
    assert done.returncode == 1 and "redirects are not followed" in done.stderr
    assert elsewhere.requests == []


def test_an_answer_over_a_mebibyte_is_refused(console, ctl):
    console.body = '{"key":"9f3a","limits":[],"x":"' + "x" * (1 << 20) + '"}'
    done = ctl("limits", KEY, "--json", "--url", console.url)
    assert done.returncode == 1 and "longer than 1048576 bytes" in done.stderr and done.stdout == ""


def test_what_is_not_there_or_not_http_fails_with_the_url_and_what_to_do(ctl):
    port = Port()
    nobody = ctl("limits", KEY, "--url", f"http://127.0.0.1:{port.number}/console")
    port.release()
    assert nobody.returncode == 1
    assert f"http://127.0.0.1:{port.number}/console/limits" in nobody.stderr and "PENSTOCK_CONSOLE" in nobody.stderr
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def babble():
            connection = listener.accept()[0]
            connection.recv(65536)
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.close()
        thread = threading.Thread(target=babble)
        thread.start()
        odd = ctl("limits", KEY, "--url", f"http://127.0.0.1:{listener.getsockname()[1]}/console")
        thread.join()
    assert odd.returncode == 1 and "HTTP" in odd.stderr


def test_an_edge_that_does_not_answer_is_given_up_after_ten_seconds(console, ctl):
    console.delay = 60
    begun = time.monotonic()
    done = ctl("limits", KEY, "--url", console.url)
    assert done.returncode == 1 and "timed out" in done.stderr.lower()
    assert 9 < time.monotonic() - begun < 20
    assert "may yet be carried out" not in done.stderr, "it was a question"


def test_an_order_that_the_edge_does_not_answer_may_yet_happen(console, ctl):
    console.delay = 60
    done = ctl("limits", KEY, "reset", "--url", console.url)
    assert done.returncode == 1 and "gave no answer" in done.stderr and "may yet be carried out" in done.stderr
    console.delay = 0
    elsewhere = ctl("limits", KEY, "reset", "--url", "http://127.0.0.1:1/console")
    assert elsewhere.returncode == 1 and "may yet" not in elsewhere.stderr, "it never left"


@pytest.mark.parametrize("arguments", [
    [], ["limits"], ["limits", KEY, "rest"], ["limits", KEY, "show", "more"], ["limits", KEY, "--jsn"],
    ["limits", KEY, "--url"], ["limits", KEY, "--url", "file:///etc/passwd"], ["limits", KEY, "--url", "127.0.0.1/console"],
    ["limits", "a\nPenstock-Key: b"], ["limits", ""], ["limits", "-"], ["offenders", "x"], ["status", "x"],
], ids=str)
def test_misuse_is_2_and_shows_the_usage(ctl, arguments):
    done = ctl(*arguments, stdin="")
    assert done.returncode == 2 and done.stdout == ""
    assert "usage: penstockctl" in done.stderr and "sk-secret" not in done.stderr


def test_of_a_command_that_is_none_the_nearest_is_told_in_one_line(ctl):
    for typed, meant in (("statsu", "status"), ("limit", "limits"), ("Jobs", "jobs")):
        done = ctl(typed, KEY)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"penstockctl: there is no command '{typed}'; did you mean '{meant}'? penstockctl help shows them all\n"


def test_help_is_not_misuse(ctl):
    for arguments in (["--help"], ["help"], ["limits", "--help"], ["help", "limits"]):
        done = ctl(*arguments)
        assert done.returncode == 0 and done.stdout.startswith("usage: penstockctl") and done.stderr == ""


def test_an_output_that_cannot_be_written_is_a_failure(console, folder):
    with open("/dev/full", "w") as full:
        done = subprocess.run([BUILD / "penstockctl", "limits", KEY, "--url", console.url], stdout=full,
                              stderr=subprocess.PIPE, env=environment(folder), timeout=30)
    assert done.returncode == 1
