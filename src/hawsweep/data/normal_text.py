"""Texts that are written in more than one way: Unicode forms, and the okina and its look-alikes.

The okina is U+02BB. Many texts have an apostrophe, a quotation mark or a grave accent in its place,
and a vowel with a macron as one character (NFC) or as two (NFD).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from hawsweep.spec.sweep import Normalize

OKINA = "ʻ"
_KAHAKO = "\u0304"  # a macron, as a character of its own
_LOOK_ALIKE = re.compile("[‘'ʼ’`]")
_VOWELS = "aeiouāēīōū"
_MARK = re.compile(f"{OKINA}|{_LOOK_ALIKE.pattern}")
# Between two vowels, or before a vowel that begins a word.
_AT_PLACE = re.compile(rf"(?:(?<=[{_VOWELS}])|(?<!\w))(?:{_MARK.pattern})(?=[{_VOWELS}])", re.I)
# The end of a quotation. On a line with one, a mark before a word and before it may begin it.
_CLOSING = re.compile(r"(?<=\S)['’`](?!\w)")
# A part of a text in one language, more or less: a prompt may quote a sentence.
_PASSAGE = re.compile(r'[^\n".:!?“”]+')
_HAWAIIAN_LETTERS = frozenset("aeiouhklmnpw")
# In Hawaiian no two consonants meet, and a word ends in a vowel.
_HAWAIIAN_WORD = re.compile(r"(?:[^\Waeiou]?[aeiou])+")
# The least shares of its letters, and of letters in such words, in a passage: names are foreign.
_LEAST_LETTERS, _LEAST_IN_WORDS = 0.9, 0.75


def nfc(text: str) -> str:
    """A text with composed characters."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """A text as it is compared with others: in NFC, with one sign for the okina and another for
    marks elsewhere.
    """
    text = nfc(text)
    return _replaced(_MARK.sub("'", text), OKINA, _places(text)) if _MARK.search(text) else text


def mend(text: str, how: Normalize) -> str:
    """A text as ``data.normalize`` asks for it; ``okina`` changes passages in Hawaiian alone."""
    if how == "none":
        return text
    text = nfc(text)
    is_done = how == "nfc" or not _LOOK_ALIKE.search(text)
    return text if is_done else _replaced(text, OKINA, _hawaiian_places(text))


def without_diacritics(text: str) -> str:
    """A text as many type Hawaiian: without the okina and its look-alikes, and without kahakō."""
    text = nfc(text)
    places = {*_hawaiian_places(text), *(at for at, sign in enumerate(text) if sign == OKINA)}
    kept = "".join(sign for at, sign in enumerate(text) if at not in places)
    return nfc(unicodedata.normalize("NFD", kept).replace(_KAHAKO, ""))


class Writing:
    """Counts how texts are written.

    Attributes:
        n_composed: Texts with characters that are composed, as in NFC.
        n_decomposed: Texts with characters that NFC would compose.
        okinas: How often each character is the okina.
    """

    def __init__(self) -> None:
        self.n_composed = self.n_decomposed = 0
        self.okinas: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count a text."""
        composed = nfc(text)
        self.n_decomposed += len(composed) < len(text)
        self.n_composed += not unicodedata.is_normalized("NFD", text)
        self.okinas[OKINA] += text.count(OKINA)
        found = (composed[place] for place in _hawaiian_places(composed))
        self.okinas.update(each for each in found if each != OKINA)

    @property
    def is_mixed_unicode(self) -> bool:
        """Whether there are both forms of Unicode."""
        return bool(self.n_composed and self.n_decomposed)

    @property
    def is_mixed_okina(self) -> bool:
        """Whether more than one character is the okina."""
        return len(+self.okinas) > 1


def _replaced(text: str, sign: str, places: Iterator[int]) -> str:
    characters = list(text)
    for place in places:
        characters[place] = sign
    return "".join(characters)


def _places(text: str) -> Iterator[int]:
    """Where an okina or a look-alike stands as an okina does, in NFC."""
    start = 0
    for line in text.split("\n"):
        closing = max((found.start() for found in _CLOSING.finditer(line)), default=-1)
        for found in _AT_PLACE.finditer(line):
            place = found.start()
            if place > closing or (place > 0 and line[place - 1].isalpha()):
                yield start + place
        start += len(line) + 1


def _hawaiian_places(text: str) -> Iterator[int]:
    """The same, in passages in Hawaiian alone."""
    if not _MARK.search(text):
        return
    places = set(_places(text))
    for passage in _PASSAGE.finditer(text):
        marks = (found.start() for found in _MARK.finditer(text, *passage.span()))
        inside = [mark for mark in marks if mark in places]
        if inside and _is_hawaiian(passage[0]):
            yield from inside


def _is_hawaiian(passage: str) -> bool:
    plain = unicodedata.normalize("NFD", _MARK.sub("", passage)).replace(_KAHAKO, "").casefold()
    words = re.findall(r"[^\W\d_]+", plain)
    n_letters = sum(map(len, words))
    n_known = sum(letter in _HAWAIIAN_LETTERS for word in words for letter in word)
    n_in_words = sum(len(word) for word in words if _HAWAIIAN_WORD.fullmatch(word))
    return (
        n_letters > 0
        and n_known >= _LEAST_LETTERS * n_letters
        and n_in_words >= _LEAST_IN_WORDS * n_letters
    )
