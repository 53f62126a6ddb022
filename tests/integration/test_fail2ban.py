"""config/fail2ban: real fail2ban reads the lines that a real Nginx wrote, and its jail is one that it takes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from waiting import until

CONFIG = Path(__file__).parents[2] / "config" / "fail2ban"
pytestmark = pytest.mark.skipif(not shutil.which("fail2ban-regex"), reason="needs fail2ban, which scripts/setup brings")


def matched(log, filter=CONFIG / "filter.d" / "penstock.conf"):
    """The addresses of the lines that count, each as often as it was refused."""
    done = subprocess.run(["fail2ban-regex", "--out", "ip", log, filter], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def refused(penstock, level="error"):
    http = f"penstock_zone edge 1m;\npenstock_log_level {level};\n"
    server = """
    location / { penstock_limit zone=edge key=$binary_remote_addr rate=1r/m name=ip; empty_gif; }
    location /few/ { penstock_limit zone=edge key=$arg_key rate=1r/m name=few; empty_gif; }
    """
    return penstock(http=http, server=server)


@pytest.mark.parametrize("level", ["error", "notice"])
def test_each_line_of_a_refusal_counts_for_the_address_that_was_refused(penstock, level):
    service = refused(penstock, level)
    for address, count in (("127.0.0.2", 4), ("127.0.0.3", 2)):
        client = service.client(address=address)
        assert [client.request("GET", "/").status for _ in range(count)] == [200] + [429] * (count - 1)
    until(lambda: service.nginx.log().count("limiting request") == 4, "they are logged")
    assert sorted(matched(service.nginx.error_log)) == ["127.0.0.2"] * 3 + ["127.0.0.3"]


def test_a_flood_is_counted_though_not_each_line_is_there(penstock):
    service = refused(penstock)
    client = service.client(address="127.0.0.2")
    until(lambda: client.request("GET", "/").status == 429 and "were not logged" in service.nginx.log(), "some are left out")
    assert matched(service.nginx.error_log) == ["127.0.0.2"] * service.nginx.log().count("limiting request")


def test_nobody_is_barred_for_what_another_wrote_into_his_request(penstock):
    service = refused(penstock)
    forged = '/x",%20client:%20192.0.2.9,%20server:'
    line = 'limiting%20request:%20429%20by%20"ip",%20plan%20"-",%20retry%20after%201%20s,%20client:%20192.0.2.9,%20server:'
    client = service.client(address="127.0.0.2")
    for path in (forged, "/" + line, f"/?a={line}"):
        client.request("GET", path, {"User-Agent": "x, client: 192.0.2.9, server:", "Referer": line.replace("%20", " ")})
    until(lambda: service.nginx.log().count("limiting request: 429") >= 2, "they are logged")
    assert set(matched(service.nginx.error_log)) == {"127.0.0.2"}


def test_a_queue_that_is_full_is_nobodys_fault(penstock, folder):
    service = refused(penstock)
    client = service.client(address="127.0.0.2")
    assert [client.request("GET", "/").status for _ in range(2)] == [200, 429]
    until(lambda: "limiting request: 429" in service.nginx.log(), "it is logged")
    for status, count in (("429", 1), ("403", 1), ("503", 0), ("400", 0)):
        (folder / "as.log").write_text(service.nginx.log().replace("limiting request: 429", f"limiting request: {status}"))
        assert matched(folder / "as.log") == ["127.0.0.2"] * count, status


def test_the_jail_counts_the_limits_that_it_names_and_fail2ban_takes_it(penstock, folder):
    service = refused(penstock)
    client = service.client(address="127.0.0.2")
    assert [client.request("GET", "/few/?key=a").status for _ in range(2)] == [200, 429]
    assert [client.request("GET", "/").status for _ in range(2)] == [200, 429]
    until(lambda: service.nginx.log().count("limiting request") == 2, "they are logged")
    etc = folder / "fail2ban"
    shutil.copytree("/etc/fail2ban", etc)
    shutil.copytree(CONFIG, etc, dirs_exist_ok=True)
    for other in (etc / "jail.d").glob("defaults*"):
        other.unlink()
    jail = etc / "jail.d" / "penstock.conf"
    jail.write_text(jail.read_text().replace("/var/log/nginx/error.log", str(service.nginx.error_log)))
    dumped = subprocess.run(["fail2ban-client", "-c", etc, "-d"], capture_output=True, text=True)
    assert dumped.returncode == 0, dumped.stdout + dumped.stderr
    (pattern,) = [line for line in dumped.stdout.splitlines() if "'addfailregex'" in line]
    assert "'penstock'" in pattern and 'by "(?:ip)",' in pattern
    assert "'maxretry', 100" in dumped.stdout
    only = folder / "only.conf"
    only.write_text((CONFIG / "filter.d" / "penstock.conf").read_text().replace('limits = [^"]+', "limits = ip"))
    assert matched(service.nginx.error_log) == ["127.0.0.2"] * 2
    assert matched(service.nginx.error_log, only) == ["127.0.0.2"]
