"""The columns of a table that hold the texts and their translations, chosen alike everywhere."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from hawsweep.data.table import Rows, full_rows, open_table
from hawsweep.errors import DataError

# The column with each row's group, which is no text.
GROUP = "group"
# Usual names of columns of translations, in lower case, the surest first.
SOURCES = ("hawaiian", "haw", "hwn", "source", "src", "input", "prompt", "question", "original")
TARGETS = (
    *("target", "tgt", "output", "completion", "answer", "english", "eng", "en", "reference"),
    "translation",
)
# Beside a column that is named after a language, a source or a reference is where a text is from.
_OF_LANGUAGES = ("english", "eng", "en", *(each for each in TARGETS if each != "reference"))
LANGUAGES = {
    *("hawaiian", "english", "german", "deutsch", "french", "spanish", "japanese", "chinese"),
    *("maori", "samoan", "tongan", "tahitian", "portuguese", "italian", "korean", "tagalog"),
    *("ilocano", "russian"),
}
_CODES = {"haw": "Hawaiian", "hwn": "Hawaiian", "en": "English", "eng": "English"}
# Words of a header beside these, without marks; a first row with none of them may be data.
_HEADER_WORDS = {*SOURCES, *TARGETS, *LANGUAGES} | {
    *("id", "number", "note", "notes", "comment", "group", "column", "language"),
    *("text", "texts", "sentence", "phrase", "word", "meaning", "definition", "gloss"),
    *("hawaii", "olelo", "pelekania", "pelekane", "kumu", "unuhi", "manao"),
}
_MOST_HEADER_WORDS = 3
_LONGEST_CODE = 3  # of a language
_ROWS_LOOKED_AT = 200
# A column looks like one of groups if it has at most so many values, each short, and each so many
# times in the mean.
_MOST_GROUPS, _LONGEST_GROUP, _LEAST_REPEATED = 20, 40, 10
_REMEDY = "Name them with data.source and data.target; `hawsweep init` has --source and --target."


@dataclass(frozen=True)
class Columns:
    """The columns taken of a table.

    Attributes:
        why: The reason for the choice, in words.
        others: Columns that are not used.
        group: The column of each row's group; None where there is none.
    """

    source: str
    target: str
    why: str
    others: tuple[str, ...] = ()
    group: str | None = None

    def __str__(self) -> str:
        groups = "" if self.group is None else f"; groups: {self.group}"
        unused = f"; not used: {', '.join(self.others)}" if self.others else ""
        return f"{self.source} to {self.target}, {self.why}{groups}{unused}"


@contextmanager
def open_pairs(
    path: Path, source: str | None = None, target: str | None = None, group: str | None = None
) -> Iterator[tuple[Columns, Rows]]:
    """The columns chosen of a table, and its rows: line number, and cells by column.

    Args:
        source: The column of the texts; None: chosen.
        target: The column of the translations; None: chosen.
        group: The column of the groups; None: the one named ``group``.

    Raises:
        DataError: The table cannot be read, its columns cannot be chosen, or rows lack a text,
            which is known after the last row.
    """
    with open_table(path) as (columns, rows):
        first = list(islice(rows, _ROWS_LOOKED_AT))
        chosen = choose_columns(path, columns, [row for _, row in first], source, target, group)
        yield chosen, full_rows(path, chain(first, rows), (chosen.source, chosen.target))


def choose_columns(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    source: str | None = None,
    target: str | None = None,
    group: str | None = None,
) -> Columns:
    """The columns of texts and translations: those asked for, else those with usual names, else the
    only two, else the only two that hold words.

    Args:
        path: The file, for messages.
        rows: The first rows, by column.

    Raises:
        DataError: There are no such two columns, one that was asked for is missing, or the header
            is a row of data.
    """
    source, target, group = (n if n is None else n.strip() for n in (source, target, group))
    _check_asked(path, columns, source, target, group)
    named = [name for name in columns if (name == group if group else is_group(name))]
    texts = [name for name in columns if _holds_words(row[name] for row in rows)]
    found = _find([name for name in columns if name not in named], texts, source, target)
    is_asked = bool(source or target)
    if not is_asked and _reads_like_data(found[:2] if found else columns, columns):
        raise DataError(
            f"{path}: its first row reads like data, not like the names of columns: "
            f"{', '.join(columns)[:200]}. Put a line such as source,target before it. If these "
            f"are names: {_REMEDY[0].lower()}{_REMEDY[1:]}"
        )
    if found is None:
        raise DataError(_explain(path, columns, [each for each in texts if each not in named]))
    left = [name for name in columns if name not in found[:2]]
    others = tuple(name for name in left if name not in named)
    return Columns(*found, others, next((name for name in named if name in left), None))


def _check_asked(
    path: Path,
    columns: Sequence[str],
    source: str | None,
    target: str | None,
    group: str | None,
) -> None:
    for key, name in (("source", source), ("target", target), ("group", group)):
        if name is not None and name not in columns:
            raise DataError(
                f"{path} has no column {name!r} (data.{key}). Its columns: "
                f"{', '.join(columns)[:500]}."
            )
    if source is not None and source == target:
        raise DataError(
            f"{path}: the texts and their translations are both from the column {source!r}. Set "
            "data.source and data.target."
        )
    if group is not None and group in (source, target):
        raise DataError(
            f"{path}: the column {group!r} is data.group, and also holds the texts. Name another."
        )


def _find(
    columns: Sequence[str], texts: Sequence[str], source: str | None, target: str | None
) -> tuple[str, str, str] | None:
    """The columns of texts and translations and why these; None where they cannot be told.

    Args:
        columns: All but that of the groups.
        texts: The columns that hold words.
    """
    if source and target:
        return source, target, "asked for"
    free = [name for name in columns if name not in (source, target)]
    first = source or _called(SOURCES, free)
    names = (*_OF_LANGUAGES, *TARGETS) if first and language_of(first) else TARGETS
    second = target or _called(names, free)
    if first and second:
        return first, second, "by their names"
    n_missing = 1 if source or target else 2
    ways = (free, "the only two"), ([n for n in free if n in texts], "the two that hold words")
    for found, why in ways:
        if len(found) == n_missing:
            first, second = _ordered(found) if n_missing == 2 else (found[0], found[0])
            return source or first, target or second, why
    return None


def is_group(column: str) -> bool:
    """Whether a column has the name of the one with each row's group."""
    return column.casefold() == GROUP


def language_of(column: str) -> str | None:
    """The language that a column is named after; None if it has another name."""
    lower = column.lower()
    if lower in LANGUAGES or (
        column.isalpha()
        and column[:1].isupper()
        and len(column) > _LONGEST_CODE
        and lower not in _HEADER_WORDS
    ):
        return column.capitalize()
    return _CODES.get(lower)


def find_group(rows: Iterable[Mapping[str, str]], columns: Sequence[str]) -> tuple[str | None, int]:
    """The first of some columns that looks like one of groups: few short values, each repeated, in
    most rows. None without one. Also the number of rows.
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in columns}
    n_rows = 0
    for row in rows:
        n_rows += 1
        for name, found in list(counts.items()):
            if row[name]:
                found[row[name]] += 1
            if len(found) > _MOST_GROUPS or len(row[name]) > _LONGEST_GROUP:
                del counts[name]
    for name, found in counts.items():
        if len(found) > 1 and found.total() >= max(n_rows / 2, len(found) * _LEAST_REPEATED):
            return name, n_rows
    return None, n_rows


def _explain(path: Path, columns: Sequence[str], texts: Sequence[str]) -> str:
    listed = ", ".join(columns)[:500]
    if len(columns) < 2:
        return (
            f"{path} has one column, {listed[:200]!r}, needs two: the text and its translation. "
            "Separate them by commas, semicolons or tabs, in a .tsv by tabs."
        )
    return (
        f"{path}: {len(texts)} of its columns hold words, must be two: the text and its "
        f"translation. Its columns: {listed}. {_REMEDY}"
    )


def _ordered(two: Sequence[str]) -> tuple[str, str]:
    """Two columns as text and translation; the name of one may tell."""
    first, second = two
    is_turned = _called(TARGETS, [first]) or _called(SOURCES, [second])
    return (second, first) if is_turned else (first, second)


def _reads_like_data(chosen: Iterable[str], header: Iterable[str]) -> bool:
    return any(map(_reads_like_text, chosen)) and not any(map(_has_header_word, header))


def _reads_like_text(cell: str) -> bool:
    return len(_words(cell)) > 1 or _ends_sentence(cell)


def _has_header_word(cell: str) -> bool:
    words = _words(cell)
    is_text = len(words) > _MOST_HEADER_WORDS or (len(words) > 2 and _ends_sentence(cell))
    return not is_text and not _HEADER_WORDS.isdisjoint(words)


def _ends_sentence(cell: str) -> bool:
    return cell.rstrip("\"'”’») ").endswith((".", "!", "?", "…"))


def _words(cell: str) -> list[str]:
    """The words of a cell in lower case, without ʻokina, macrons and other marks."""
    apart = unicodedata.normalize("NFKD", cell.casefold())
    plain = (c for c in apart if c not in "ʻʼ‘’'`" and not unicodedata.combining(c))
    return re.findall(r"[^\W_]+", "".join(plain))


def _holds_words(cells: Iterable[str]) -> bool:
    filled = [cell for cell in cells if cell]
    n_wordy = sum(0 < sum(map(str.isalpha, cell)) >= sum(map(str.isdigit, cell)) for cell in filled)
    return n_wordy * 2 > len(filled)


def _called(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The first column with one of the names, the surest name first."""
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)
