"""The table of constructions: the group of each, and how many sentences the book takes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hawsweep.phrasebook import location, moods, nominal, phrases, qualities, questions, verbal
from hawsweep.phrasebook.holdout import held_out_pair
from hawsweep.phrasebook.pairs import Pair, pick

MAX_WORDS = 12
"""Longer Hawaiian sentences are left out."""

HELD_OUT_SHARE = 0.05
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
    Construction("past", verbal.past, 235),
    Construction("past", verbal.giving_past, 15),
    Construction("present", verbal.present, 185),
    Construction("future", verbal.future, 190),
    Construction("future", verbal.giving_future, 13),
    Construction("negation", verbal.negated_past, 80),
    Construction("negation", verbal.negated_future, 60),
    Construction("negation", moods.not_wanting_things, 22),
    Construction("negation", moods.not_being_able, 25),
    Construction("negation", qualities.not_being, 35),
    Construction("negation", nominal.not_classing, 18),
    Construction("command", moods.commands, 130),
    Construction("modal", moods.wanting_things, 40),
    Construction("modal", moods.wanting_to, 45),
    Construction("modal", moods.being_able, 38),
    Construction("modal", moods.having_to, 38),
    Construction("passive", moods.passive, 70),
    Construction("stative", qualities.being, 128),
    Construction("stative", qualities.being_very, 60),
    Construction("stative", qualities.being_one, 10),
    Construction("stative", qualities.aching, 12),
    Construction("comparison", qualities.comparing, 70),
    Construction("equational", nominal.classing_people, 48),
    Construction("equational", nominal.classing_things, 38),
    Construction("equational", nominal.identifying, 44),
    Construction("equational", nominal.identifying_callings, 10),
    Construction("equational", nominal.identifying_things, 26),
    Construction("possessive", nominal.having, 78),
    Construction("possessive", nominal.having_none, 34),
    Construction("possessive", nominal.having_some_number, 38),
    Construction("possessive", nominal.belonging, 38),
    Construction("question", moods.asking_past, 48),
    Construction("question", moods.asking_present, 26),
    Construction("question", moods.asking_future, 38),
    Construction("question", moods.asking_what, 26),
    Construction("question", qualities.asking_quality, 26),
    Construction("question", questions.asking_class, 10),
    Construction("question", questions.asking_whose, 12),
    Construction("question", questions.asking_who, 18),
    Construction("question", questions.asking_how_many, 10),
    Construction("question", questions.asking_how, 9),
    Construction("question", questions.asking_where, 26),
    Construction("question", questions.asking_when, 18),
    Construction("question", questions.asking_thing_at, 13),
    Construction("place", location.thing_at, 65),
    Construction("place", location.person_at, 44),
    Construction("place", location.living_at, 22),
    Construction("place", location.coming_from, 18),
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
