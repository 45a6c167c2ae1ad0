"""Markdown with texts of data, models and other programs, which cannot change its layout."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawsweep.text import counted, visible

if TYPE_CHECKING:
    import jinja2

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
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """A table of cells of Markdown; the columns ``right`` are aligned right."""
    ruler = ["---:" if number in right else "---" for number in range(len(titles))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ruler, *rows))


def render(template: Path, **values: Any) -> str:
    """A text by a Jinja template with the filters ``plain``, ``code``, ``fenced``, ``counted``."""
    return _read_template(template).render(values)


@cache
def _read_template(path: Path) -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(  # nosec B701 # Markdown: the filters escape
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": plain, "code": code, "fenced": fenced, "counted": counted}
    return environment.from_string(path.read_text(encoding="utf-8"))
