"""What is kept of jobs that are over, and for how long: by queue, and changed while it runs."""

import signal
import subprocess

from conftest import simulate
from processes import BUILD
from test_jobs import ALICE, job, until_status
from waiting import until

SERVER = """
penstock_owner $http_authorization;
location /v1/ { penstock_pass gpu; }
location /long/ { penstock_pass gpu queue=long; }
location /bodies/ { penstock_pass gpu queue=bodies; }
location /jobs { penstock_jobs gpu; }
"""
PROMPT = "A prompt that is kept for a while and no longer"


def done(service, path="/v1/completions", model="sim"):
    reply = service.complete(path, {**ALICE, "Prefer": "respond-async"}, model=model, prompt=PROMPT)
    assert reply.status == 202, reply.body
    until_status(service, reply.json()["id"], "completed")
    return reply.json()["id"]


def replayable(service):
    """The jobs of that queue whose bodies are kept."""
    said = subprocess.run([BUILD / "penstockctl", "replay", "--queue", "bodies", "--since", "1h", "--dry-run", "-s", service.penstockd.socket],
                          capture_output=True, text=True, timeout=60)
    return [word for word in said.stdout.split() if word.startswith("job_")]


def is_there(service, id):
    return service.get(f"/jobs/{id}", **ALICE).status == 200


def test_each_queue_keeps_results_and_bodies_as_long_as_it_says(penstock):
    """Of three queues at once: the sweep comes each ten seconds."""
    workers = [simulate(slots=2, service_time="1ms")] + [simulate(name, slots=2, service_time="1ms", queue=name) for name in ("long", "bodies")]
    service = penstock(start=False, server=SERVER, workers=workers)
    config = service.penstockd.config
    config.write_text(config.read_text().replace("queues:\n", "queues:\n  long: { keep_results: 1h }\n  bodies: { keep_results: 0s, keep_bodies: 3s }\n")
                      .replace("attempts: 3", "keep_results: 1s, attempts: 3") + "state: state\n")
    service.start(ready=False)
    for queue in ("default", "long", "bodies"):
        service.penstockd.wait_for(queue=queue, slots=2)
    brief, long, body = done(service), done(service, "/long/v1/completions", "long"), done(service, "/bodies/v1/completions", "bodies")
    assert replayable(service) == [body]
    before = service.penstockd.process.text().count("reloaded")
    config.write_text(config.read_text().replace("keep_results: 1s", "keep_results: 2h").replace("keep_bodies: 3s", "keep_bodies: 2h"))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: service.penstockd.process.text().count("reloaded") > before, "it is reloaded")
    for changed in ("queues.default.keep_results: 2h (was 1s)", "queues.bodies.keep_bodies: 2h (was 3s)"):
        assert f"changed: {changed}" in service.penstockd.process.text()
    later, later_body = done(service), done(service, "/bodies/v1/completions", "bodies")
    until(lambda: not is_there(service, brief) and not is_there(service, body), "what is to be kept briefly is gone", 40)
    assert replayable(service) == [later_body], "and its body, with the job"
    assert all(is_there(service, id) for id in (long, later, later_body)), "the others are kept; a reload counts for what ends from then on"
    assert job(service, long)["expires_at"] > job(service, long)["finished_at"]
