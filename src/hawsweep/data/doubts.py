"""Training records that are doubtful by their texts: copies, exchanged sides, other languages,
unusual lengths, repetitions, leaks.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from hawsweep.data.language import Profile, robust_z
from hawsweep.data.leaks import KnownTexts, cut_sources, words_of
from hawsweep.data.load import Splits
from hawsweep.data.records import Record

# Deviations from the median from which on a length is unusual.
_FAR = 6.0
# Of the logarithms of length ratios: a smaller deviation would make small differences unusual.
_LEAST_DEVIATION = 0.15
# Characters added to both lengths: the ratio of short texts says little.
_SHORT = 10
# The share of texts that look like their own side from which on the sides are two languages.
_TWO_LANGUAGES = 0.85
# The share of the words of two records, in the same order, from which on one repeats the other.
_SAME_ORDER = 0.95
# Fewer texts make no profile of a language.
FEWEST = 50

# A record's place, the kind of doubt, and a sentence.
Found = Iterator[tuple[int, str, str]]
Pairs = Sequence[tuple[str, str]]


def doubts_of_texts(pairs: Pairs, records: Sequence[Record], splits: Splits) -> Found:
    """The doubts about training records, one for each kind and record.

    Args:
        pairs: See ``pairs_of``.
    """
    yield from _copies(pairs)
    yield from _languages(pairs)
    yield from _lengths(pairs)
    yield from _repeats(pairs, records)
    for name in ("valid", "test"):
        yield from _leaks(records, getattr(splits, name), name)


def pairs_of(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Sources and references; of the sources without what nearly all begin and end with."""
    sources = [record.source for record in records]
    cut = cut_sources(sources, sources)
    references = [(record.reference or "").strip() for record in records]
    return list(zip(cut, references, strict=True))


def _copies(pairs: Pairs) -> Found:
    for at, (source, reference) in enumerate(pairs):
        if not reference or not source:
            yield at, "empty", f"its {'source' if reference else 'reference'} is empty"
        elif words_of(source) and words_of(source) == words_of(reference):
            yield at, "copy", "its reference is its source"


def _languages(pairs: Pairs) -> Found:
    """Texts that look like the other side, or like neither."""
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    if len(pairs) < FEWEST or not all(map(any, sides)):
        return
    profiles = [Profile(texts) for texts in sides]
    own, other = (
        np.array(
            [
                [profiles[side ^ away].log_probability(each, is_own=not away) for each in texts]
                for side, texts in enumerate(sides)
            ]
        )
        for away in (0, 1)
    )
    if np.mean(own > other, axis=1).min() < _TWO_LANGUAGES:
        return
    is_other = own < other
    for at in np.flatnonzero(is_other.any(axis=0)).tolist():
        if is_other[:, at].all():
            yield at, "direction", "its source looks like a reference, its reference like a source"
        elif is_other[1, at]:
            yield at, "language", "its reference looks like the sources"
        else:
            yield at, "language", "its source looks like the references"


def _lengths(pairs: Pairs) -> Found:
    lengths = np.array([[len(part) + _SHORT for part in pair] for pair in pairs], float)
    ratios = lengths[:, 1] / lengths[:, 0]
    z = robust_z(np.log(ratios), _LEAST_DEVIATION)
    low, high = np.quantile(ratios, (0.05, 0.95))
    for at in np.flatnonzero(np.abs(z) > _FAR).tolist():
        yield (
            at,
            "length",
            f"its reference is {ratios[at]:.2g} times as long as its source; mostly it is "
            f"{low:.2g} to {high:.2g} times",
        )


def _repeats(pairs: Pairs, records: Sequence[Record]) -> Found:
    whole = ["\n".join(pair) for pair in pairs]
    known = KnownTexts(whole)
    for at, text in enumerate(whole):
        first = known.identical(text)
        if first is not None and first < at:
            yield at, "repeat", f"it repeats {short(records[first])}"
        elif (near := known.near(text, before=at)) is not None and _same_order(text, whole[near]):
            yield at, "repeat", f"it nearly repeats {short(records[near])}"


def _same_order(one: str, other: str) -> bool:
    """Whether two texts have nearly all words in the same order: others may say the opposite."""
    words = words_of(one), words_of(other)
    return SequenceMatcher(None, *words, autojunk=False).ratio() >= _SAME_ORDER


def _leaks(records: Sequence[Record], others: Sequence[Record], name: str) -> Found:
    usual = [each.source for each in records]
    sources, theirs = cut_sources(usual, usual), cut_sources([o.source for o in others], usual)
    known, whole = KnownTexts(theirs), KnownTexts([each.source for each in others])
    for at, source in enumerate(sources):
        same, how = whole.identical(usual[at]), ""
        if same is None:
            same, how = known.near(source), "nearly "
            if same is not None and not _same_order(source, theirs[same]):
                continue
        if same is not None:
            yield at, "leak", f"its source is {how}that of {short(others[same])} ({name})"


def short(record: Record) -> str:
    """Where a record is, without folders."""
    return Path(record.where).name
