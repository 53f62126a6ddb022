"""What docs/ and the README say to paste, so that tests do that, and not what was copied from there once."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def text_of(name):
    return (ROOT / name).read_text()


def blocks(name, language):
    """Those of a file in that language; "": those of none."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", text_of(name), re.M | re.S)
    return [text for of, text in found if of == language]


def block_with(name, words, language=""):
    """The one of them that has these words."""
    (found,) = [block for block in blocks(name, language) if words in block]
    return found
