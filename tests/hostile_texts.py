"""Texts that would do something in a terminal, and how to tell."""

import unicodedata

FORGED = "Error: all is well"
ATTACKS = {
    "title": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H",
    "colour": "\x1b[8mhidden",
    "link": "\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\",
    "c1": "\x9b31mred",
    "return": f"name\r{FORGED}",
    "backspace": "rank 8\b\b16",
    "line": f"name\n{FORGED}",
    "next line": f"name\x85{FORGED}",
    "separator": f"name\u2028{FORGED}",
    "paragraph": f"name\u2029{FORGED}",
    "override": "score \u202e9.0\u202c",
    "isolate": "score \u20669.0\u2069",
    "half": "a\ud800b",
    "delete": "a\x7fb",
    "null": "a\0b",
}


def acts(character):
    """By Unicode: whether a terminal may obey a character."""
    return character not in "\n\t" and (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character)
        in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )


def is_harmless(text):
    lines = text.split("\n")
    return not any(map(acts, text)) and not any(line.startswith(FORGED) for line in lines)
