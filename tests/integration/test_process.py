"""Engine process: programs behind Nginx, penstockd and a worker."""

import json
import textwrap

from processes import QueueStatus

PASS = "location / { penstock_pass gpu; }"

HELLO = """\
import json, os, sys
def say(**line): print(json.dumps(line), flush=True)
say(penstock=1)
say(ready=True)
jobs = (json.loads(line) for line in sys.stdin)
jobs = (job for job in jobs if "job" in job)
"""


def program(folder, text, name="program", **keys):
    """A worker whose program is that Python, after HELLO."""
    path = folder / f"{name}.py"
    path.write_text(HELLO + textwrap.dedent(text))
    return dict(name=name, engine="process", command=f"[/usr/bin/python3, {path}]", model="sim", **keys)


def serve(penstock, *workers, **parts):
    """The service, once every program is ready."""
    service = penstock(start=False, server=PASS, workers=list(workers), **parts)
    service.penstockd.start()
    service.penstockd.wait_for(state=QueueStatus.OPEN)
    service.nginx.start(service.port)
    return service


def test_a_program_answers(penstock, folder):
    echo = """\
        for job in jobs:
            body = json.loads(job["body"])
            say(result={"type": "text/plain", "body": body["prompt"].upper()}, usage={"prompt_tokens": 3, "completion_tokens": 2})
        """
    service = serve(penstock, program(folder, echo))
    for prompt in ("one", "two"):
        answer = service.complete(prompt=prompt)
        assert (answer.status, answer.text()) == (200, prompt.upper())
        assert answer.headers["Content-Type"] == "text/plain"
