"""Lua of the operator's in the location that a limit stands in: Debian's module, or one that is built into Nginx (OpenResty)."""

import os
import subprocess
from pathlib import Path

import pytest

import conftest
from conftest import simulate
from processes import NGINX

BUILT_IN = any(name in subprocess.run([NGINX, "-V"], capture_output=True, text=True, env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin")).stderr
               for name in ("ngx_lua", "lua-nginx-module"))
DEBIANS = [Path(f"/usr/lib/nginx/modules/{name}.so") for name in ("ndk_http_module", "ngx_http_lua_module")]
LOCATION = """
    location / {
        access_by_lua_block {
            ngx.sleep(0.01)
            if ngx.var.arg_key == "barred" then ngx.exit(403) end
            ngx.ctx.judged = "yes"
        }
        header_filter_by_lua_block { ngx.header["X-Judged"] = ngx.ctx.judged }
        penstock_limit zone=edge key=$arg_key rate=1r/h name=a;
        penstock_pass gpu;
    }"""


@pytest.fixture
def service(penstock, monkeypatch):
    if not BUILT_IN:
        if NGINX != "nginx" or not all(path.exists() for path in DEBIANS):
            pytest.skip("Nginx has no Lua here: Debian's package is libnginx-mod-http-lua")
        monkeypatch.setattr(conftest, "MODULE", ";\nload_module ".join(map(str, [*DEBIANS, conftest.MODULE])))
    path = os.environ.get("LUA_PATH", "/usr/share/lua/5.1/?.lua;;")
    return penstock(http=f'penstock_zone edge 1m;\nlua_package_path "{path}";', server=LOCATION, workers=[simulate()])


def test_both_judge_a_request(service):
    answer = service.complete("/v1/completions?key=a")
    assert answer.status == 200 and answer.headers["X-Judged"] == "yes" and answer.json()["usage"]["completion_tokens"] == 4
    refused = service.complete("/v1/completions?key=a")
    assert refused.status == 429 and "X-Judged" not in refused.headers and 0 < int(refused.headers["Retry-After"]) <= 3600
    assert service.complete("/v1/completions?key=barred").status == 403


def test_a_stream_comes_through(service):
    assert service.stream("/v1/completions?key=b", max_tokens=3).rest().endswith(b"data: [DONE]\n\n")
