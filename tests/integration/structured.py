"""Structured Field lists (RFC 9651, 3.1), strictly: anything that the grammar does not have is an error."""

import re

KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
INTEGER = re.compile(r"-?[0-9]{1,15}(?![0-9.])")
TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")


def parse_list(text):
    """`"a";q=1, "b"` → [("a", {"q": 1}), ("b", {})]."""
    members, at = [], 0
    while True:
        item, at = _bare_item(text, at)
        parameters = {}
        while text[at:at + 1] == ";":
            at += 1
            while text[at:at + 1] == " ":
                at += 1
            key = _match(KEY, text, at)
            at = key.end()
            value = True
            if text[at:at + 1] == "=":
                value, at = _bare_item(text, at + 1)
            parameters[key.group()] = value
        members.append((item, parameters))
        if at == len(text):
            return members
        separator = _match(re.compile(r"[ \t]*,[ \t]*(?=.)"), text, at)
        at = separator.end()


def _bare_item(text, at):
    if text[at:at + 1] == '"':
        found = _match(STRING, text, at)
        return re.sub(r"\\(.)", r"\1", found.group(1)), found.end()
    if re.match(r"[0-9-]", text[at:]):
        found = _match(INTEGER, text, at)
        return int(found.group()), found.end()
    found = _match(TOKEN, text, at)
    return found.group(), found.end()


def _match(pattern, text, at):
    found = pattern.match(text, at)
    if not found:
        raise ValueError(f"not a structured field list: {text!r} at {at}")
    return found
