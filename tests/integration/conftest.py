"""The service under test, built from what the test writes, and torn down with a look at what it left behind.

    def test_something(penstock):
        service = penstock(http="penstock_zone edge 1m;",
                           server="location / { penstock_limit zone=edge key=$arg_key rate=1r/m name=a; penstock_pass gpu; }",
                           workers=[simulate(slots=1)])
        assert service.get("/v1/models").status == 200
"""

import os
import re
import shutil
import tempfile
import textwrap
from pathlib import Path

import pytest

import planted
from client import Client
from processes import MODULE, Nginx, Penstockd, sanitizer_reports
from redis_server import RedisServer
from scripted import Scripted
from waiting import Port

NGINX_CONF = """\
load_module {module};
{user}
worker_processes {processes};
worker_shutdown_timeout 10s;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    penstock_temp_path {folder}/penstock;
    access_log off;
    upstream gpu {{ {servers} keepalive 8; }}
{http}
    server {{
        listen 127.0.0.1:{port} backlog=1024{reuseport};
{server}
    }}
}}
"""


def simulate(name="sim", **options):
    """A worker that makes words without a model: simulate(slots=2, service_time="20ms")."""
    return dict(name=name, engine="simulate", **options)


def yaml_of(workers, queue, more):
    lines = ["queues:", "  default: " + flow(queue), "workers:" if workers else "workers: []"]
    lines += ["  - " + flow(worker) for worker in workers]
    return "\n".join(lines) + "\n" + textwrap.dedent(more)


def flow(mapping):
    return "{ " + ", ".join(f"{key}: {value}" for key, value in mapping.items()) + " }"


class Service:
    """Nginx, and as many penstockds as asked for, in a folder of their own."""

    def __init__(self, folder, http="", server="", workers=None, queue=None, limits=None, yaml="", daemons=1,
                 processes=1, master=False):
        self.folder = folder
        self._ports, self._clients = [], []
        self.expected_alert = None  # words of an [alert] that the test provokes
        self.port = self.free_port()
        self.daemons = []
        options = {"attempts": 3, "backoff": "10ms", **(queue or {})}
        limits = {"worker_grace": "10s", **(limits or {})}
        yaml = f"limits: {flow(limits)}\n" + textwrap.dedent(yaml)
        if workers is not None:
            self.daemons = [Penstockd(folder, f"penstockd{i}" if i else "penstockd", yaml_of(workers, options, yaml))
                            for i in range(daemons)]
        self._several = processes > 1 or master
        self._processes = processes
        self.nginx = Nginx(folder, self.configuration(http, server), self._several)

    def configuration(self, http, server):
        sockets = [daemon.socket for daemon in self.daemons] or [self.folder / "nobody.sock"]
        return NGINX_CONF.format(
            module=MODULE, user="user root;" if os.getuid() == 0 else "", processes=self._processes, folder=self.folder,
            servers=" ".join(f"server unix:{socket};" for socket in sockets), http=textwrap.indent(textwrap.dedent(http), "    "),
            server=textwrap.indent(textwrap.dedent(server), "        "), port=self.port,
            reuseport=" reuseport" if self._processes > 1 else "")

    @property
    def penstockd(self):
        return self.daemons[0]

    def start(self, ready=True):
        for daemon in self.daemons:
            daemon.start()
        for daemon in self.daemons:
            if ready and "engine:" in daemon.config.read_text():
                self.wait_for_workers(daemon)
        self.nginx.start(self.port)
        return self

    @staticmethod
    def wait_for_workers(daemon):
        """Until every worker of the configuration that penstockd starts has its slots on offer."""
        text = "\n".join(line for line in daemon.config.read_text().splitlines() if "external: true" not in line)
        slots = sum(int(count) for count in re.findall(r"slots: (\d+)", text))
        count = len(re.findall(r"engine:", text))
        missing = count - len(re.findall(r"slots:", text))
        daemon.wait_for(slots=slots + missing, unless="next start in 800ms")

    def free_port(self):
        self._ports.append(Port())
        return self._ports[-1].number

    def client(self, port=None, address=None):
        """A connection of its own, closed with the test; from an address of its own, such as 127.0.0.2."""
        self._clients.append(Client(port or self.port, address=address))
        return self._clients[-1]

    def request(self, method, path, headers=None, body=None):
        """One request on a new connection."""
        client = Client(self.port)
        try:
            return client.request(method, path, headers, body)
        finally:
            client.close()

    def get(self, path, **headers):
        return self.request("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def complete(self, path="/v1/completions", headers=None, **body):
        """One completion, whole."""
        return self.request("POST", path, headers, {"model": "sim", "prompt": "a", "max_tokens": 4, **body})

    def stream(self, path="/v1/completions", headers=None, **body):
        """One completion as it comes."""
        return self.client().stream("POST", path, headers, {"model": "sim", "prompt": "a", "stream": True, **body})

    def statuses(self, count, path="/", **headers):
        """The status of each of `count` requests, one after the other on one connection."""
        client = self.client()
        return [client.request("GET", path, headers).status for _ in range(count)]

    def close(self):
        """Stops everything, and returns what a healthy service would not have left behind."""
        for client in self._clients:
            client.close()
        faults = []
        if self.nginx.process:
            faults += self._stop("nginx", self.nginx, None)
        for daemon in self.daemons:
            if daemon.process:
                faults += self._stop(daemon.name, daemon, daemon.expect_death)
        alerts = re.findall(r"^.*\[(?:alert|emerg)\].*$", self.nginx.log(), re.M) if self.nginx.process else []
        faults += [line for line in alerts if not self.expected_alert or self.expected_alert not in line]
        faults += sanitizer_reports(self.folder)
        for port in self._ports:
            port.release()
        return faults

    @staticmethod
    def _stop(name, service, expect_death):
        try:
            status = service.stop()
        except AssertionError as error:
            return [str(error)]
        if status != 0 and not expect_death:
            return [f"{name} ended with {status}: {service.process.text()[-2000:]}"]
        return []


@pytest.fixture
def folder():
    """A folder that Nginx's workers may enter, with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="penstock-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shown = planted.shown_in(path)  # of whatever was started here, by whichever fixture
    planted.forget()
    shutil.rmtree(path, ignore_errors=True)
    assert not shown, "\n".join(shown)


@pytest.fixture
def penstock(folder, request):
    """Starts services; start=False leaves that to the test."""
    services = []

    def build(start=True, ready=True, **parts):
        home = folder / str(len(services))
        home.mkdir()
        services.append(Service(home, **parts))
        return services[-1].start(ready) if start else services[-1]

    yield build
    faults = [fault for service in services for fault in service.close()]
    if faults or getattr(request.node, "failed", False):
        for service in services:
            print(f"--- error.log\n{service.nginx.log()[-4000:]}")
            for daemon in service.daemons:
                print(f"--- {daemon.name}\n{daemon.process.text()[-4000:] if daemon.process else ''}")
    assert not faults, "\n".join(faults)


@pytest.fixture
def peer(folder):
    """peer("a", frames ...): a scripted penstockd of that name."""
    peers = []

    def play(name, *steps, **options):
        peers.append(Scripted(folder / f"{name}.sock", *steps, **options))
        return peers[-1]

    yield play
    assert not [fault for one in peers for fault in one.close()]


@pytest.fixture
def redis(request):
    server = RedisServer(*getattr(request, "param", ()))
    yield server
    server.close()


@pytest.fixture
def edge(peer, penstock):
    """Nginx before scripted peers: each is an upstream by its name, and all together are the upstream `all`."""
    def build(*peers, http="", server="location / { penstock_pass all; }", more="", **parts):
        upstreams = "".join(f"upstream {one.path.stem} {{ server {one.server}; keepalive 8; }}\n" for one in peers)
        # The first of all is always tried first.
        first, *rest = [one.server for one in peers]
        rest = "".join(f"server {server}; " for server in rest)
        upstreams += f"upstream all {{ server {first} weight=100; {rest}{more} keepalive 8; }}\n"
        return penstock(http="penstock_zone edge 1m;\n" + upstreams + http, server=server, **parts)
    return build


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.failed = outcome.get_result().failed
