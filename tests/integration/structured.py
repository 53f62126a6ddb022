"""Structured Field Values (RFC 9651, section 4.2), strictly: anything that the grammar does not have is a ValueError.

An item is (value, parameters), an inner list ([item, ...], parameters). Integers are int, decimals Decimal, strings str, and
what Python has no type for is a class of its own here.
"""

import base64
import re
from decimal import Decimal


class Token(str):
    pass


class Date(int):
    pass


class DisplayString(str):
    pass


NUMBER = re.compile(r"-?([0-9]+)(?:\.([0-9]*))?")
STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")
BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
DISPLAY = re.compile(r'%"((?:[\x20-\x21\x23-\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")


class _Parser:
    def __init__(self, text):
        self.text, self.at = text, 0
        self.skip(" ")

    def fail(self):
        raise ValueError(f"no structured field: {self.text!r} at {self.at}")

    def skip(self, characters):
        while self.text[self.at:self.at + 1] and self.text[self.at] in characters:
            self.at += 1

    def take(self, character):
        there = self.text[self.at:self.at + 1] == character
        self.at += there
        return there

    def match(self, pattern):
        found = pattern.match(self.text, self.at)
        if not found:
            self.fail()
        self.at = found.end()
        return found

    def end(self, value):
        self.skip(" ")
        if self.at < len(self.text):
            self.fail()
        return value

    def members(self, read):
        """Lists and dictionaries: read() each, with commas between."""
        while self.at < len(self.text):
            read()
            self.skip(" \t")
            if self.at == len(self.text):
                return
            if not self.take(","):
                self.fail()
            self.skip(" \t")
            if self.at == len(self.text):
                self.fail()  # a comma at the end

    def item_or_inner_list(self):
        return self.inner_list() if self.text[self.at:self.at + 1] == "(" else self.item()

    def inner_list(self):
        self.at += 1
        items = []
        while True:
            self.skip(" ")
            if self.take(")"):
                return items, self.parameters()
            items.append(self.item())
            if self.text[self.at:self.at + 1] not in (" ", ")"):
                self.fail()

    def item(self):
        return self.bare_item(), self.parameters()

    def parameters(self):
        parameters = {}
        while self.take(";"):
            self.skip(" ")
            key = self.match(KEY).group()
            parameters.pop(key, None)  # the last one counts, in its place
            parameters[key] = self.bare_item() if self.take("=") else True
        return parameters

    def bare_item(self):
        first = self.text[self.at:self.at + 1]
        if first == '"':
            return re.sub(r"\\(.)", r"\1", self.match(STRING).group(1))
        if first == ":":
            text = self.match(BYTES).group(1)
            try:
                return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
            except ValueError:
                self.fail()
        if first == "?":
            return self.match(re.compile(r"\?[01]")).group() == "?1"
        if first == "@":
            self.at += 1
            number = self.number()
            return Date(number) if isinstance(number, int) else self.fail()
        if first == "%":
            escaped = self.match(DISPLAY).group(1).encode()
            return DisplayString(re.sub(rb"%(..)", lambda found: bytes.fromhex(found.group(1).decode()), escaped).decode("utf-8"))
        if re.match(r"[0-9-]", first):
            return self.number()
        return Token(self.match(TOKEN).group())

    def number(self):
        found = self.match(NUMBER)
        whole, fraction = found.groups()
        if fraction is None:
            return int(found.group()) if len(whole) <= 15 else self.fail()
        return Decimal(found.group()) if len(whole) <= 12 and 1 <= len(fraction) <= 3 else self.fail()


def parse_item(text):
    parser = _Parser(text)
    return parser.end(parser.item())


def parse_list(text):
    """`"a";q=1, "b"` → [("a", {"q": 1}), ("b", {})]."""
    parser, members = _Parser(text), []
    parser.members(lambda: members.append(parser.item_or_inner_list()))
    return parser.end(members)


def parse_dictionary(text):
    parser, members = _Parser(text), {}

    def read():
        key = parser.match(KEY).group()
        members.pop(key, None)
        members[key] = parser.item_or_inner_list() if parser.take("=") else (True, parser.parameters())
    parser.members(read)
    return parser.end(members)
