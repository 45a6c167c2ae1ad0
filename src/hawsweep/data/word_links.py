"""How well the words of a reference go with those of its source, learned from the pairs themselves.

A word of a reference is drawn from one of its source's words, or from none: IBM Model 1 (Brown et
al., "The Mathematics of Statistical Machine Translation", 1993), over each text's different words.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hawsweep.data.leaks import words_of

_ROUNDS = 6
# Of a text so many words count, fewer where there are many records: memory and time are those of
# the links between the words of a source and the words of its reference.
_MOST_WORDS, _MOST_LINKS = 64, 8_000_000
_FEW_WORDS = 20
# How much the other records must say before they outweigh how frequent a word is.
_PRIOR = 4.0
_FEWEST_KNOWN = 3


def reads_much(n: int) -> bool:
    """Whether of ``n`` pairs so many words count that they may speak for a text."""
    return _most_words(n) >= _FEW_WORDS


def word_evidence(pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
    """By how much the source makes the words of its reference likelier, in nats a word,
    ``[records]``.

    What a pair itself says is left out. Of words that no other reference has nothing is known. NaN
    where fewer than three words are known: rare phrases would look as if they did not fit.

    Args:
        pairs: Sources and references.
    """
    n = len(pairs)
    if not n:
        return np.empty(0)
    most = _most_words(n)
    # The last word of each source stands for none of them.
    sources, n_sources = _numbered([source for source, _ in pairs], most, has_none=True)
    references, n_references = _numbered([reference for _, reference in pairs], most)
    lengths, widths = (np.array([len(each) for each in side]) for side in (references, sources))
    source, reference = np.concatenate(sources), np.concatenate(references)
    # A link joins a record's source word (from) and its reference word (to).
    n_links = lengths * widths
    record = np.repeat(np.arange(n), n_links)
    within = np.arange(n_links.sum()) - np.repeat(np.cumsum(n_links) - n_links, n_links)
    start = (np.cumsum(widths) - widths)[record] + within // lengths[record]
    end = (np.cumsum(lengths) - lengths)[record] + within % lengths[record]
    kinds, kind = np.unique(source[start] * n_references + reference[end], return_inverse=True)
    of_kind = kinds // max(1, n_references)
    likelihood = np.ones(len(kinds))
    for _ in range(_ROUNDS):
        shares = likelihood[kind] / np.bincount(end, likelihood[kind])[end]
        counts = np.bincount(kind, shares, len(kinds))
        totals = np.bincount(of_kind, counts, n_sources)
        likelihood = counts / totals[of_kind]
    others = np.bincount(reference, minlength=n_references)[reference] - 1
    n_words = len(reference) - np.repeat(lengths, lengths)
    alone = np.maximum(others, 0.5) / np.maximum(n_words, 1)
    own = np.bincount(start, shares, len(source))
    from_others = np.maximum(counts[kind] - shares, 0) + _PRIOR * alone[end]
    linked = from_others / (np.maximum(totals[source[start]] - own[start], 0) + _PRIOR)
    gain = np.log(np.bincount(end, linked, len(reference)) / np.repeat(widths, lengths) / alone)
    is_known = others > 0
    of_record = np.repeat(np.arange(n), lengths)
    n_known = np.bincount(of_record, is_known, n)
    sums = np.bincount(of_record, np.where(is_known, gain, 0), n)
    return np.where(n_known >= _FEWEST_KNOWN, sums / np.maximum(n_known, 1), np.nan)


def _most_words(n: int) -> int:
    return max(1, min(_MOST_WORDS, int((_MOST_LINKS / max(1, n)) ** 0.5)))


def _numbered(
    texts: Sequence[str], most: int, *, has_none: bool = False
) -> tuple[list[npt.NDArray[np.int64]], int]:
    """The different words of each text as numbers, and how many numbers there are."""
    known: dict[str, int] = {"": 0} if has_none else {}
    numbers = []
    for text in texts:
        words = list(dict.fromkeys(words_of(text)))[:most] + ([""] if has_none else [])
        numbers.append(np.array([known.setdefault(each, len(known)) for each in words], np.int64))
    return numbers, len(known)
