"""Texts of others as Markdown that they cannot break out of."""

import html
import re


def fenced(text: str, language: str) -> str:
    """Text as a code block that nothing in it can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def inline(text: str) -> str:
    """Text of others' as one line of plain words, in a table too."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escaped)


def code(text: str) -> str:
    """Text for between backticks, in a table too."""
    return " ".join(text.replace("`", "'").replace("|", "\\|").split())
