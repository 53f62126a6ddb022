#!/usr/bin/env python3
"""Writes unicode_class_table.inc: the ranges of code points that are letters (L*), numbers (N*) or white space.

    python3 worker/engines/llama/make_unicode_class.py > worker/engines/llama/unicode_class_table.inc

Letters and numbers are general categories as Python's unicodedata has them; white space is the White_Space
property, which is what \\s means in the tokenizers' regular expressions.
"""

import sys
import unicodedata

WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def class_of(code):
    if code in WHITE_SPACE:
        return "kSpace"
    return {"L": "kLetter", "N": "kNumber"}.get(unicodedata.category(chr(code))[0])


def main():
    print(f"// Made by make_unicode_class.py from Unicode {unicodedata.unidata_version}; do not edit.")
    first, kind = 0, None
    for code in range(sys.maxunicode + 2):
        now = class_of(code) if code <= sys.maxunicode else None
        if now != kind:
            if kind:
                print(f"{{0x{first:X}, 0x{code - 1:X}, CharClass::{kind}}},")
            first, kind = code, now


main()
