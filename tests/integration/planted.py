"""What tests send that no log may ever show: prompts and keys. Whatever Client sends is noted, and whatever a test plants by other
ways; when a service is stopped, and when a test's folder goes, the logs there are looked through for it (conftest.py)."""

import json
import re

LEAST = 16  # what is shorter may stand in a log by chance
LOGS = ("*.out", "*.log", "log")
KEYS = ("authorization", "x-api-key", "api-key", "cookie", "penstock-solution", "cf-turnstile-response")
PROMPTS = ("prompt", "content", "text", "input", "system", "suffix")

_planted = set()


def plant(*secrets):
    """Keys or prompts that went another way than by Client. Shown in pieces they are shown, too: the first 16 bytes count."""
    for secret in secrets:
        if len(secret) >= LEAST:
            _planted.add(secret[:LEAST])
    return secrets[0] if len(secrets) == 1 else secrets


def note(headers, body):
    """A request that Client sends."""
    for name, value in dict(headers or {}).items():
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if name.lower() in KEYS:
            plant(re.sub(r"^(Bearer|Basic) ", "", value))
    if isinstance(body, dict):
        _note_prompts(body)


def _note_prompts(value, is_prompt=False):
    if isinstance(value, dict):
        for name, each in value.items():
            _note_prompts(each, name in PROMPTS)
    elif isinstance(value, list):
        for each in value:
            _note_prompts(each, is_prompt)
    elif isinstance(value, str) and is_prompt:
        plant(value)


def forget():
    _planted.clear()


def shown_in(folder):
    """"FILE: what" for each that a log below that folder shows."""
    found = []
    for pattern in LOGS:
        for path in folder.rglob(pattern):
            text = path.read_text(errors="replace") if path.is_file() else ""
            for secret in _planted:
                forms = {secret, json.dumps(secret)[1:-1]}
                line = next((line for line in text.splitlines() if any(form in line for form in forms)), None)
                if line is not None:
                    found.append(f"{path.name} shows {secret!r}: {line[:300]}")
    return found
