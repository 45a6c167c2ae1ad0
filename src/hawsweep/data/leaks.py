"""Texts in more than one split: on these a score measures memory."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
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


# A split's name, its sources or references, and these without what nearly all sources begin and end
# with: an instruction, whose words make no two texts alike.
_Texts = tuple[str, Sequence[str], Sequence[str]]


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
    usual = texts["train"]["source"]
    cut = {
        name: {**each, "source": cut_sources(each["source"], usual)} for name, each in texts.items()
    }
    compared = (
        _compare(
            part,
            (later, texts[later][part], cut[later][part]),
            (earlier, texts[earlier][part], cut[earlier][part]),
        )
        for earlier, later in combinations(texts, 2)
        for part in ("source", "reference")
    )
    return [leak for leak in compared if leak is not None]


def cut_sources(sources: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Sources without what nearly all of the ``usual`` ones begin and end with."""
    start, end = _common_start(usual), _common_start([each[::-1] for each in usual])[::-1]

    def cut(text: str) -> str:
        return text.removeprefix(start).removesuffix(end).strip()

    # Where all ask the same that is no instruction before a source.
    is_instruction = 2 * sum(map(bool, map(cut, usual))) > len(usual)
    return [cut(each) if is_instruction else each.strip() for each in sources]


def _common_start(texts: Sequence[str]) -> str:
    """What nine tenths of the texts begin with: in their order those stand together."""
    ordered = sorted(texts)
    least = len(ordered) // 20
    ends = zip(ordered[least], ordered[-1 - least], strict=False)
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], ends))


def _texts(records: Iterable[Record]) -> dict[str, list[str]]:
    pairs = [(record.source, record.reference or "") for record in records]
    return {"source": [one for one, _ in pairs], "reference": [other for _, other in pairs]}


def _compare(part: str, split: _Texts, other: _Texts) -> Leak | None:
    name, texts, cut = split
    known, known_cut = KnownTexts(other[1]), KnownTexts(other[2][:_MOST_COMPARED])
    identical = [known.identical(text) is not None for text in texts]
    near = [
        not same and known_cut.near(text) is not None
        for text, same in zip(cut, identical, strict=True)
    ]
    leaking = [text for text, a, b in zip(texts, identical, near, strict=True) if a or b]
    if not leaking:
        return None
    return Leak(part, name, other[0], sum(identical), sum(near), len(texts), leaking[0])


class KnownTexts:
    """Texts among which one is found that is identical to another text, or nearly.

    Of two nearly identical sets of words one of the rarest words is in both, so that few have to be
    compared (Chaudhuri, Ganti and Kaushik 2006, prefix filtering).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        words = [words_of(text) for text in texts]
        self._first: dict[tuple[str, ...], int] = {}
        for number, each in enumerate(words):
            self._first.setdefault(each, number)
        self._sets = [frozenset(each) for each in words[:_MOST_COMPARED]]
        self._frequency = Counter(word for each in self._sets for word in each)
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        for number, different in enumerate(self._sets):
            for word in self._rarest(different):
                self._by_word[word].append(number)

    def identical(self, text: str) -> int | None:
        """The number of the first text that is identical but for its writing; see ``Leak``."""
        words = words_of(text)
        return self._first.get(words) if words else None

    def near(self, text: str, before: int | None = None) -> int | None:
        """The number of a text that shares ``_NEAR`` of its different words with this one.

        Args:
            before: Only texts of lower numbers.
        """
        asked = frozenset(words_of(text))
        candidates = {n for word in self._rarest(asked) for n in self._by_word.get(word, ())}
        return next(
            (
                number
                for number in sorted(candidates)
                if (before is None or number < before)
                and _jaccard(asked, self._sets[number]) >= _NEAR
            ),
            None,
        )

    def _rarest(self, words: frozenset[str]) -> list[str]:
        """Of the words those to look a text up by; none of a short text."""
        if len(words) < _LEAST_WORDS:
            return []
        n_enough = len(words) - ceil(_NEAR * len(words)) + 1
        return sorted(words, key=lambda word: (self._frequency[word], word))[:n_enough]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text as it is compared with others."""
    return tuple(re.findall(r"\w+", folded(text).casefold()))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
