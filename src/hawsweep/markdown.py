"""Markdown with texts of data, models and other programs, which cannot change its layout."""

import re
from collections.abc import Iterable, Sequence

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
# Texts that GitHub's Markdown makes a link of, even if escaped: an invisible mark prevents it.
_LINKED = re.compile(r"(?<=://)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)
_WORD_JOINER = "\u2060"


def plain(text: str, length: int = 160) -> str:
    """A text without markup, in one line, cut after ``length`` characters."""
    text = "".join(each if each.isprintable() else " " for each in text)
    text = " ".join(text.split())
    if len(text) > length:
        text = f"{text[: length - 1]}…"
    return _PUNCTUATION.sub(r"\\\1", _LINKED.sub(_WORD_JOINER, text))


def code(text: str) -> str:
    """A text in one line, as code; also for cells of tables."""
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    # Markdown splits a table's row at its bars before it looks for code.
    return f"{ticks}{padding}{text}{padding}{ticks}".replace("|", r"\|")


def fenced(text: str, language: str) -> str:
    """Text as a code block, with a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """A table of cells of Markdown; the columns ``right`` are aligned right."""
    ruler = ["---:" if number in right else "---" for number in range(len(titles))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ruler, *rows))
