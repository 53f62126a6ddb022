"""A model's own files through the real worker: its chat template, its added tokens, its ends."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from processes import BUILD
from waiting import until

MODEL = Path(__file__).parents[2] / "config" / "models" / "demo"
PASS = "location / { penstock_pass gpu; }"
TURNS = "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else m['content'] }}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('There is no system role.') }}{% endif %}" + TURNS


def model(folder, **files):
    """A copy of the demo model; the members of its JSON files as given."""
    shutil.copytree(MODEL, folder)
    for name, members in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | members))
    return folder


@pytest.fixture
def service(penstock, tmp_path):
    models = {
        "inst": model(tmp_path / "inst", tokenizer_config={"chat_template": NO_SYSTEM}),
        "none": model(tmp_path / "none", tokenizer_config={"chat_template": "{% include 'other' %}"}),
    }
    return penstock(server=PASS, workers=[dict(name=name, model_name=name, engine="llama", model=folder, device="cpu", slots=2, memory="32MiB")
                                          for name, folder in models.items()])


def chat(service, name, *contents, role="user"):
    return service.complete("/v1/chat/completions", model=name, prompt=None, max_tokens=1,
                            messages=[{"role": role, "content": content} for content in contents])


def test_the_models_own_template_is_rendered(service):
    asked = chat(service, "inst", "Say hello.").json()["usage"]["prompt_tokens"]
    text = service.complete(model="inst", prompt="[INST] Say hello. [/INST]", max_tokens=1).json()["usage"]["prompt_tokens"]
    assert asked == text


def test_what_a_template_raises_is_a_400_with_its_words(service):
    answer = chat(service, "inst", "x", role="system")
    assert answer.status == 400 and answer.json()["error"]["message"] == "There is no system role."


def test_a_chat_that_gives_no_length_holds_memory_for_the_default_alone(penstock, tmp_path):
    long = model(tmp_path / "long", config={"max_position_embeddings": 131072}, tokenizer_config={"chat_template": TURNS})
    workers = [dict(name=name, model_name=name, engine="llama", model=long, device="cpu", slots=4, memory="256MiB", threads=1, **more)
               for name, more in [("usual", {}), ("told", {"default_max_tokens": 60000})]]
    service = penstock(server=PASS, workers=workers)

    def held(name):
        return next(worker["kv_blocks_used"] for worker in json.loads(service.penstockd.status())["workers"] if worker["name"] == name)

    def endless(name):
        return dict(model=name, prompt=None, max_tokens=None, ignore_eos=True, messages=[{"role": "user", "content": "Tell me."}])
    answer = service.complete("/v1/chat/completions", **endless("usual")).json()
    assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 4096
    stream = service.stream("/v1/chat/completions", **endless("told"))
    until(lambda: held("told"), "it runs")
    assert held("told") == -(-(answer["usage"]["prompt_tokens"] + 60000) // 16)  # of blocks of 16 tokens; the whole context has 8192
    stream.close()


def test_a_template_that_cannot_be_used_refuses_chats_alone_and_says_why(service):
    answer = chat(service, "none", "x")
    assert answer.status == 400 and '"include" is not implemented' in answer.json()["error"]["message"]
    assert service.complete(model="none", prompt="x", max_tokens=1).status == 200


@pytest.mark.skipif(not (BUILD / "penstockctl").exists(), reason="penstockctl is not built")
def test_penstockctl_says_how_each_model_is_asked(service, tmp_path):
    def ctl(*arguments):
        done = subprocess.run([BUILD / "penstockctl", "status", *arguments, "-s", service.penstockd.socket], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = {worker["model"]: worker["chat"] for worker in json.loads(ctl("--json"))["workers"]}
    assert said["inst"] == f"chat is asked in the model's own template, of {tmp_path}/inst/tokenizer_config.json"
    assert said["none"].startswith("chat is refused: ") and '"include" is not implemented' in said["none"]
    assert all(f"\n{model}: {chat}\n" in ctl() for model, chat in said.items())
