"""The page at /, in a real browser (browser/): the whole life of tasks, and every state as it looks."""

import subprocess
from pathlib import Path

from npm import installed
from processes import BUILD

SOURCE = Path(__file__).parent / "browser"
WWW = Path(__file__).parents[2] / "config" / "www"
HTTP = """
    map $http_authorization $caller { default $http_authorization; "" $penstock_net; }
    map $http_authorization $owner { default $http_authorization; "" $penstock_session; }
    map $http_authorization $plan { default others; "" free; }
    penstock_zone edge 1m;
    penstock_docs /plans;
    penstock_tier free { rate 60r/m burst=20; quota 8r/d; concurrency 5; }
    penstock_tier others { rate 100r/s; }
"""
SERVER = f"""
    penstock_owner $owner;
    penstock_share $caller;
    location /v1/ {{ penstock_limit zone=edge key=$caller tier=$plan; penstock_pass gpu; }}
    location = /v1/models {{ penstock_pass gpu; }}
    location /jobs {{ penstock_jobs gpu; }}
    location = /quota {{ penstock_quota; }}
    location / {{ penstock_ui gpu root={WWW}; }}
"""


def play(script, *arguments):
    """A script of browser/, in the end without a fault."""
    done = subprocess.run(["node", installed("browser") / script, *map(str, arguments), BUILD / "screenshots"], capture_output=True, text=True,
                          timeout=120)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-8000:]


def test_the_life_of_tasks(penstock, folder):
    stage = folder / "stage.sock"
    worker = dict(engine="process", command=f"[/usr/bin/python3, {SOURCE / 'relay.py'}, {stage}]", device="cpu", slots=1)
    service = penstock(http=HTTP, server=SERVER, workers=[dict(name=name, model=name, **worker) for name in ("words", "pictures")],
                       queue={"max_length": 3}, yaml="state: state\n")
    play("story.mjs", f"http://127.0.0.1:{service.port}", stage)


def test_as_many_tasks_as_may_at_the_same_time(penstock, folder):
    stage = folder / "stage.sock"
    worker = dict(name="words", model="words", engine="process", command=f"[/usr/bin/python3, {SOURCE / 'relay.py'}, {stage}]", device="cpu", slots=1)
    service = penstock(http=HTTP.replace("concurrency 5", "concurrency 1"), server=SERVER, workers=[worker], yaml="state: state\n")
    play("full.mjs", f"http://127.0.0.1:{service.port}", stage)


def test_every_state_as_it_looks(penstock):
    play("states.mjs", f"http://127.0.0.1:{penstock(http=HTTP, server=SERVER).port}")


def test_signing_in(penstock, folder):
    file = folder / "keys"
    key = subprocess.run([BUILD / "penstockctl", "keys", "add", "team-a", "--tier", "pro", "-f", file], capture_output=True, text=True,
                         check=True).stdout.split()[0]
    service = penstock(http=f"""
        penstock_keys {file};
        map $penstock_key_owner $owner {{ default $penstock_key_owner; "" $penstock_session; }}
        map $penstock_key_tier $plan {{ default $penstock_key_tier; "" free; }}
        penstock_tier pro {{ rate 100r/s; }}
        map $owner $caller {{ default $owner; }}""" + HTTP.split("$plan", 1)[1].partition("\n")[2],
                       server=SERVER + "location = /session { penstock_sign_in zone=edge; }", workers=[dict(name="sim", engine="simulate", slots=1)],
                       yaml="state: state\n")
    play("sign_in.mjs", f"http://127.0.0.1:{service.port}", key)
