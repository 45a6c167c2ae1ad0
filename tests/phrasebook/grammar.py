"""The table of constructions: the group of each, and how many sentences the book takes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from phrasebook import nominal, phrases, verbal
from phrasebook.holdout import held_out_pair
from phrasebook.pairs import Pair, pick

MAX_WORDS = 7
"""Longer Hawaiian sentences are left out."""

HELD_OUT_SHARE = 0.04
"""Held-out sentences made of a construction, as a share of its others."""


@dataclass(frozen=True)
class Construction:
    """A way of making sentences.

    Attributes:
        expand: Gives every sentence the construction makes of the lexicon.
        count: How many of them the book takes.
    """

    group: str
    expand: Callable[[], Iterator[Pair]]
    count: int


CONSTRUCTIONS = (
    Construction("past", verbal.past, 200),
    Construction("present", verbal.present, 120),
    Construction("future", verbal.future, 125),
    Construction("negation", verbal.negated_past, 65),
    Construction("negation", verbal.negated_future, 30),
    Construction("negation", verbal.not_wanting_things, 50),
    Construction("negation", nominal.not_being, 115),
    Construction("negation", nominal.not_classing, 20),
    Construction("command", verbal.commands, 180),
    Construction("modal", verbal.wanting_things, 80),
    Construction("modal", verbal.wanting_to, 50),
    Construction("stative", nominal.being, 245),
    Construction("stative", nominal.being_very, 105),
    Construction("equational", nominal.classing_people, 50),
    Construction("equational", nominal.classing_things, 75),
    Construction("equational", nominal.identifying, 50),
    Construction("equational", nominal.identifying_things, 45),
    Construction("possessive", nominal.having, 160),
    Construction("question", verbal.asking_past, 55),
    Construction("question", verbal.asking_wanting, 30),
    Construction("question", nominal.asking_quality, 65),
    Construction("question", nominal.asking_class, 12),
    Construction("question", nominal.asking_who, 15),
    Construction("question", nominal.asking_where, 40),
    Construction("question", nominal.asking_thing_at, 15),
    Construction("place", nominal.thing_at, 60),
    Construction("place", nominal.person_at, 64),
)
GROUPS = (*dict.fromkeys(c.group for c in CONSTRUCTIONS), "everyday", "proverb")


@dataclass(frozen=True)
class Book:
    """The sentences of the book; no Hawaiian and no English text appears twice.

    Attributes:
        known: Without any held-out combination.
        held_out: Each with a held-out combination.
    """

    known: list[Pair]
    held_out: list[Pair]


def by_hand() -> list[Pair]:
    """Return the hand-written sentences."""
    sentences = {"everyday": phrases.EVERYDAY, "proverb": phrases.PROVERBS}
    return [
        Pair(hawaiian, english, group=group)
        for group, written in sentences.items()
        for hawaiian, english in written
    ]


def expand() -> Book:
    """Give the hand-written sentences, then the constructions' in their order.

    Held-out sentences are drawn evenly over the held-out pairs of words.
    """
    book = Book(by_hand(), [])
    taken = {text for pair in book.known for text in (pair.hawaiian, pair.english)}
    for construction in CONSTRUCTIONS:
        salt = construction.expand.__qualname__
        known: list[Pair] = []
        held_out: list[Pair] = []
        for pair in construction.expand():
            if len(pair.hawaiian.split()) > MAX_WORDS:
                continue
            if combination := held_out_pair(pair.hawaiian):
                held_out.append(replace(pair, head=" ".join(combination)))
            else:
                known.append(pair)
        picked = pick(known, construction.count, taken, salt)
        book.known.extend(replace(pair, group=construction.group) for pair in picked)
        count = round(construction.count * HELD_OUT_SHARE)
        picked = pick(held_out, count, taken, salt)
        book.held_out.extend(replace(pair, group=construction.group) for pair in picked)
    return book
