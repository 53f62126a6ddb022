"""Challenges, as ALTCHA's library and widget from npm solve them, and as people see them in a browser."""

import subprocess

import pytest

from proof_of_work import Keys, mac
from conftest import simulate
from npm import installed
from test_challenge import SECRET, server, zone
from test_challenge_provider import provider, start  # noqa: F401 (they are fixtures)
from test_page import WWW, play

LIMIT = "penstock_limit zone=edge key={key} rate=1r/h name={name} action=challenge verified=50r/h"


def open_at(folder):
    """A page that is limited."""
    (folder / "open").mkdir()
    (folder / "open/index.html").write_text("<!DOCTYPE html><title>open</title><link rel=icon href=/ui/icon.svg>through")
    return f"location /open/ {{ {LIMIT.format(key='$arg_key', name='open')}; root {folder}; add_header Cache-Control no-store; }}"


@pytest.mark.parametrize("algorithm", ["sha-256", "pbkdf2"])
def test_the_library_from_npm_solves_and_verifies(penstock, folder, algorithm):
    service = penstock(http=zone(folder), server=server(f"algorithm={algorithm}"))
    keys = Keys(SECRET)
    arguments = [f"http://127.0.0.1:{service.port}", algorithm, keys.signature.decode(), mac(keys.master, b"altcha-key").hexdigest(), WWW]
    done = subprocess.run(["node", installed("altcha") / "interop.mjs", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]


WIDGET_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8"><title>widget</title>
<link rel="icon" href="/ui/icon.svg">
<link rel="stylesheet" href="/altcha/external/altcha.css">
<script type="module" src="/altcha/external/altcha.js"></script>
<script type="module" src="/widget.js"></script>
<form method="post" action="/challenge?key=widget">
  <altcha-widget></altcha-widget>
  <input type="hidden" name="to" value="/open/?key=widget">
</form>
"""
WIDGET_SCRIPT = """
for (const name of ["SHA-256", "PBKDF2/SHA-256"]) {
  $altcha.algorithms.set(name, () => new Worker(`/altcha/workers/${name === "SHA-256" ? "sha" : "pbkdf2"}.js`));
}
await customElements.whenDefined("altcha-widget");
const widget = document.querySelector("altcha-widget");
const { challenge } = await (await fetch("/open/?key=widget", { headers: { Accept: "application/json" } })).json();
widget.addEventListener("statechange", ({ detail }) => detail.state === "verified" && setTimeout(() => widget.closest("form").submit()));
widget.configure({ challenge });
widget.verify();
"""


@pytest.mark.parametrize("algorithm", ["sha-256", "pbkdf2"])
def test_the_widget_from_npm_solves_it(penstock, folder, algorithm):
    policy = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; worker-src 'self'; "
              "form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
    (folder / "widget.html").write_text(WIDGET_PAGE)
    (folder / "widget.js").write_text(WIDGET_SCRIPT)
    service = penstock(http=zone(folder, "include /etc/nginx/mime.types;"), server=f"""
        penstock_challenge pow algorithm={algorithm};
        location = /challenge {{ penstock_verify; }}
        {open_at(folder)}
        location = /widget {{ default_type text/html; add_header Content-Security-Policy "{policy}"; alias {folder}/widget.html; }}
        location = /widget.js {{ alias {folder}/widget.js; }}
        location /altcha/ {{ alias {installed('altcha')}/node_modules/altcha/dist/; }}
        location /ui/ {{ penstock_ui gpu root={WWW}; }}""")
    play("widget.mjs", f"http://127.0.0.1:{service.port}")


def test_who_is_over_the_limit_is_checked_and_goes_on(penstock, folder):
    service = penstock(http=zone(folder, "map $http_authorization $owner { default $penstock_session; }"), workers=[simulate()],
                       yaml="state: state\n", server=f"""
        penstock_owner $owner;
        penstock_challenge pow algorithm=pbkdf2;
        location = /challenge {{ penstock_verify; }}
        {open_at(folder)}
        location /v1/ {{ {LIMIT.format(key='$penstock_net', name='ip')}; penstock_pass gpu; }}
        location = /v1/models {{ penstock_pass gpu; }}
        location /jobs {{ penstock_jobs gpu; }}
        location = /quota {{ penstock_quota; }}
        location / {{ penstock_ui gpu root={WWW}; }}""")
    play("challenge.mjs", f"http://127.0.0.1:{service.port}")


def test_a_providers_widget_leads_on(penstock, folder, provider, start):  # noqa: F811
    """Its script is the test's, in place of the provider's own."""
    usual = provider.usual
    provider.answer = lambda form: (500, {}, b"") if form["response"].startswith("unavailable") else usual(form)
    service = start(more="algorithm=pbkdf2", server=f"{open_at(folder)} location /ui/ {{ penstock_ui gpu root={WWW}; }}", http="include /etc/nginx/mime.types;")
    play("provider.mjs", f"http://127.0.0.1:{service.port}")
