"""Texts in more than one split: on these a score measures memory."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil

from hawsweep.data.load import Splits
from hawsweep.data.normal_text import folded
from hawsweep.data.records import Record

# Two texts are nearly identical if they share this part of the words in either.
_NEAR = 0.9
# Short texts share most of their words by chance.
_LEAST_WORDS = 8
# The most texts compared word by word. Identical texts are found among all.
_MOST_COMPARED = 20_000


@dataclass(frozen=True)
class Leak:
    """The number of texts of one split that another split has too.

    Attributes:
        part: ``source`` or ``reference``.
        split: The later split; its scores are too high.
        other: The split that has the same texts.
        n_identical: Texts that differ in case, punctuation, spaces, Unicode form and the character
            of the okina only.
        n_near: Other texts that share nine tenths of their words with a text of ``other``.
        n_texts: All texts of ``split``.
        example: One of the shared texts.
    """

    part: str
    split: str
    other: str
    n_identical: int
    n_near: int
    n_texts: int
    example: str

    def __str__(self) -> str:
        count = self.n_identical + self.n_near
        near = f" ({self.n_near} of them nearly)" if self.n_near else ""
        return (
            f"{count} of {self.n_texts} {self.part}s of {self.split} are in {self.other} "
            f"too{near}, such as {self.example[:60]!r}"
        )


def find_leaks(splits: Splits) -> list[Leak]:
    """The leaks between each two splits, of sources and of references."""
    names = ("train", "valid", "test")
    texts = {name: _texts(records) for name in names if (records := getattr(splits, name))}
    compared = (
        _compare(part, later, texts[later][part], earlier, texts[earlier][part])
        for earlier, later in combinations(texts, 2)
        for part in ("source", "reference")
    )
    return [leak for leak in compared if leak is not None]


def _texts(records: Iterable[Record]) -> dict[str, list[str]]:
    pairs = [(record.source, record.reference or "") for record in records]
    return {"source": [one for one, _ in pairs], "reference": [other for _, other in pairs]}


def _compare(
    part: str, split: str, texts: Sequence[str], other: str, others: Sequence[str]
) -> Leak | None:
    words = [_words(text) for text in texts]
    known = {" ".join(each) for each in map(_words, others)}
    identical = [bool(each) and " ".join(each) in known for each in words]
    near = _nearly_in(
        [() if same else each for each, same in zip(words, identical, strict=True)],
        [_words(text) for text in others[:_MOST_COMPARED]],
    )
    leaking = [text for text, a, b in zip(texts, identical, near, strict=True) if a or b]
    if not leaking:
        return None
    return Leak(part, split, other, sum(identical), sum(near), len(texts), leaking[0])


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", folded(text).casefold()))


def _nearly_in(texts: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> list[bool]:
    """Whether each text shares ``_NEAR`` of its different words with another.

    Of two such sets one of the rarest words is in both, so that few have to be compared
    (Chaudhuri, Ganti and Kaushik 2006, prefix filtering).
    """
    sets = [frozenset(each) for each in others]
    frequency = Counter(word for each in sets for word in each)
    by_word: defaultdict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(sets):
        if len(each) >= _LEAST_WORDS:
            for word in _rarest(each, frequency):
                by_word[word].append(number)

    def is_near(asked: frozenset[str]) -> bool:
        if len(asked) < _LEAST_WORDS:
            return False
        candidates = {n for word in _rarest(asked, frequency) for n in by_word[word]}
        return any(_jaccard(asked, sets[number]) >= _NEAR for number in candidates)

    return [is_near(frozenset(text)) for text in texts]


def _rarest(words: frozenset[str], frequency: Counter[str]) -> list[str]:
    n_enough = len(words) - ceil(_NEAR * len(words)) + 1
    return sorted(words, key=lambda word: (frequency[word], word))[:n_enough]


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
