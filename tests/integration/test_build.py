"""How the module is built: for any Nginx, and so that nothing can be thrown into it."""

import json
import os
import re
import shlex
import subprocess

from processes import BUILD

ROOT = os.path.realpath(f"{__file__}/../../..")


def commands(folder):
    """The compiler's command for each source in a folder, by the source's path."""
    lines = json.loads((BUILD / "compile_commands.json").read_text())
    return {line["file"]: line["command"] for line in lines if line["file"].startswith(f"{ROOT}/{folder}/")}


def code(path):
    """The source without its comments and texts."""
    with open(path) as file:
        return re.sub(r'//[^\n]*|"(?:\\.|[^"\\\n])*"', "", file.read())


def test_what_touches_pcre_compiles_for_an_nginx_without_it(folder):
    sources = {path: command for path, command in commands("ngx_module").items() if re.search("regex|PCRE|captures", code(path))}
    assert sources
    made = re.search(r"-isystem (\S+) -isystem (\S+)/src/core ", next(iter(sources.values())))
    subprocess.run([f"{ROOT}/scripts/configure_nginx", made[2], folder / "objs"], check=True,
                   env={**os.environ, "NGINX_CONF_FLAGS": "--without-pcre --without-http_rewrite_module"})
    for command in sources.values():
        command = re.sub(r" -o \S+", "", command).replace(f"-isystem {made[1]} ", f"-isystem {folder}/objs ")
        run = subprocess.run([*shlex.split(command), "-fsyntax-only"], capture_output=True, text=True, cwd=folder)
        assert run.returncode == 0, run.stderr


def test_no_exception_can_be_thrown_into_nginx():
    module, shared = commands("ngx_module"), commands("shared")
    assert module and shared
    assert not [path for path, command in module.items() if "-fno-exceptions" not in command]
    headers = [os.path.join(place, name) for place, _, names in os.walk(f"{ROOT}/shared") for name in names if name.endswith(".h")]
    throwing = re.compile(r"\b(?:throw|try|catch)\b|\.at\(|\bsto(?:[ifd]|ll?|ull?)\(")
    assert not [path for path in [*shared, *headers] if throwing.search(code(path))]
