"""notify: an operator's programs and services are told of the ends of promised jobs, at least once, whatever is killed."""

import json
import os
import stat

import pytest

from conftest import simulate
from test_webhooks import outcomes, receiver  # noqa: F401 (receiver is a fixture)
from waiting import until


def program(folder, text, name="tell"):
    """A program that is this script of Python, told where to write."""
    path = folder / name
    path.write_text(f"#!/usr/bin/python3\nimport os, sys, time\nhere = {str(folder)!r}\n{text}\n")
    path.chmod(0o700)
    return path


WRITE = """
said = sys.stdin.read()
with open(here + "/told.new", "w") as file:
    file.write(said + "\\n" + os.environ["PENSTOCK_EVENT"] + " " + os.environ["PENSTOCK_JOB_ID"])
os.rename(here + "/told.new", here + "/told")
"""


@pytest.fixture
def service(penstock):
    def start(*hooks, server="location /v1/ { penstock_pass gpu; } location = /metrics { penstock_metrics gpu; }", **options):
        yaml = "state: state\nnotify:\n" + "".join(f"  - {json.dumps(hook)}\n" for hook in hooks)
        return penstock(server=server, workers=[simulate(slots=1, service_time="1ms", **options)], yaml=yaml)
    return start


def promised(service, **headers):
    reply = service.complete(headers={"Prefer": "respond-async", **{name.replace("_", "-"): value for name, value in headers.items()}})
    assert reply.status == 202, reply
    return reply.json()["id"]


def test_a_program_is_told_of_a_jobs_end(service, folder):
    started = service({"on": ["completed"], "command": [str(program(folder, WRITE))]})
    id = promised(started, Penstock_Label="the%20label")
    until((folder / "told").exists, "the program was told")
    said, _, words = (folder / "told").read_text().rpartition("\n")
    assert words == f"completed {id}"
    told = json.loads(said)
    assert told["type"] == "job.completed" and told["data"]["id"] == id and told["data"]["label"] == "the label"
    assert told["data"]["result_url"] == f"/jobs/{id}/result"
    until(lambda: outcomes(started, of="notices") == {"delivered": 1, "retried": 0, "given_up": 0}, "it is counted")
    assert started.complete().status == 200, "nobody is told of what is waited for"
    assert json.loads((folder / "told").read_text().rpartition("\n")[0])["data"]["id"] == id


def test_a_service_is_told_by_a_template_that_quotes_rightly(service, receiver):  # noqa: F811
    here = receiver()
    started = service({"on": ["completed"], "url": here.url, "headers": {"X-Team": "a"},
                       "json": {"text": "{{id}}: {{label}}", "tries": "{{attempts}}", "model": "{{ model }}", "n": 7}})
    id = promised(started, Penstock_Label="%22,%22x%22:%22%0A%5C%3C/script%3E")
    until(lambda: here.posts, "it was told")
    headers, body = here.posts[0]
    assert json.loads(body) == {"text": f'{id}: ","x":"\n\\</script>', "tries": 0, "model": "sim", "n": 7}
    assert headers["x-team"] == "a" and headers["content-type"] == "application/json"


def test_a_service_that_is_away_is_told_later_and_not_given_up(service, receiver):  # noqa: F811
    here = receiver(503, 204)
    started = service({"on": ["completed"], "url": here.url})
    id = promised(started)
    until(lambda: outcomes(started, of="notices").get("retried") == 1, "the first try failed")
    until(lambda: len(here.posts) == 2, "it was tried again", 20)
    assert [json.loads(body)["data"]["id"] for _, body in here.posts] == [id, id]


def test_a_job_whose_every_try_failed_is_told_as_dead(service, folder):
    started = service({"on": ["dead"], "command": [str(program(folder, WRITE))]}, failure_rate=1)
    id = promised(started)
    until((folder / "told").exists, "the program was told")
    assert (folder / "told").read_text().endswith(f"dead {id}")
    assert json.loads((folder / "told").read_text().rpartition("\n")[0])["type"] == "job.dead"


def test_a_program_that_hangs_is_killed_and_holds_up_nobody(service, folder, receiver):  # noqa: F811
    here = receiver()
    hangs = program(folder, "open(here + '/started', 'w').close()\ntime.sleep(1000)", "hangs")
    started = service({"on": ["completed"], "command": [str(hangs)], "timeout": "300ms"}, {"on": ["completed"], "url": here.url})
    promised(started)
    until(lambda: here.posts, "the other hook was told meanwhile")
    until(lambda: outcomes(started, of="notices").get("retried") == 1, "it was killed, and is tried again")
    assert "took too long, and was killed by signal 9" in started.penstockd.process.text()


def test_what_a_killed_penstockd_had_not_told_is_told_by_the_next(service, folder):
    """At least once: the program that was running is run again."""
    waits = program(folder, "open(here + '/started', 'a').write('x')\nwhile not os.path.exists(here + '/go'): time.sleep(0.01)\n" + WRITE)
    started = service({"on": ["completed"], "command": [str(waits)], "timeout": "60s"})
    id = promised(started)
    until(lambda: (folder / "started").exists() and (folder / "started").read_text() == "x", "the program runs")
    started.penstockd.kill()
    started.penstockd.start()
    until(lambda: (folder / "started").read_text() == "xx", "it runs again")
    (folder / "go").touch()
    until((folder / "told").exists, "it was told")
    assert (folder / "told").read_text().endswith(f"completed {id}")
    until(lambda: outcomes(started, of="notices").get("delivered") == 1, "and that is all")


def test_a_hook_may_be_changed_by_a_reload(service, folder):
    started = service({"on": ["failed"], "command": [str(program(folder, WRITE))]})
    config = started.penstockd.config
    config.write_text(config.read_text().replace('["failed"]', '["completed"]'))
    started.penstockd.process.signal(1)
    until(lambda: "reloaded" in started.penstockd.process.text(), "it was read again")
    id = promised(started)
    until((folder / "told").exists, "the program was told")
    assert (folder / "told").read_text().endswith(f"completed {id}")


def test_the_shipped_mail_hook_writes_a_mail_that_says_what_happened(service, folder):
    """config/notify-mail, with a sendmail that keeps what it gets."""
    sendmail = program(folder, "open(here + '/mail.new', 'w').write(sys.stdin.read() + repr(sys.argv[1:]))\nos.rename(here + '/mail.new', here + '/mail')", "sendmail")
    hook = os.path.join(os.path.dirname(__file__), "../../config/notify-mail")
    assert os.stat(hook).st_mode & stat.S_IXUSR
    started = service({"on": ["completed"], "command": [os.path.realpath(hook), "ops@example.com", str(sendmail)]})
    id = promised(started, Penstock_Label="a%0ABcc: evil@example.com")
    until((folder / "mail").exists, "a mail was sent")
    head, _, body = (folder / "mail").read_text().partition("\n\n")
    assert "To: ops@example.com" in head.split("\n") and f"Subject: Penstock: {id} completed" in head.split("\n")
    assert not [line for line in head.split("\n") if line.startswith("Bcc")], "no field makes a header of its own"
    assert id in body and "['-t', '-i']" in body
