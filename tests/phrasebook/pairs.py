"""A sentence pair, how its two sides are put together, and how some are drawn of many."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

OKINA = "\u02bb"
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A Hawaiian sentence and its English.

    Attributes:
        head: The verb or word that sampling is spread over.
        group: The kind of construction, as the record names it.
    """

    hawaiian: str
    english: str
    head: str = ""
    group: str = ""


def sentence(*parts: str, end: str = ".") -> str:
    """Join the parts that are not empty, with a capital (after an ʻokina) and an end mark."""
    text = " ".join(part for part in parts if part)
    first = 1 if text.startswith(OKINA) else 0
    return text[:first] + text[first].upper() + text[first + 1 :] + end


def digest(text: str) -> bytes:
    """A fixed pseudo-random order of texts: the same on every Python, platform and hash seed."""
    return hashlib.sha256(text.encode()).digest()


def choose(key: str, options: Sequence[T]) -> T:
    """Pick one option by ``key`` alone."""
    return options[int.from_bytes(digest(key)[:8]) % len(options)]


def some(key: str, options: Sequence[T], count: int) -> list[T]:
    """Pick ``count`` options by ``key`` alone, or all where there are fewer."""
    return sorted(options, key=lambda option: digest(f"{key} {option}"))[:count]


def pick(candidates: Iterable[Pair], count: int, taken: set[str], salt: str) -> list[Pair]:
    """Take up to ``count`` pairs, evenly over their heads, in digest order.

    Args:
        salt: Gives each construction its own order of heads, so that where there are more heads
            than ``count`` it is not always the same ones that are left out.
        taken: Both sides of the pairs already in the book; none is taken twice, and it grows.
    """
    by_head: dict[str, list[Pair]] = {}
    for pair in candidates:
        by_head.setdefault(pair.head, []).append(pair)
    queues = [
        sorted(by_head[head], key=lambda pair: digest(pair.hawaiian), reverse=True)
        for head in sorted(by_head, key=lambda head: digest(f"{salt} {head}"))
    ]
    picked: list[Pair] = []
    while len(picked) < count and any(queues):
        for queue in queues:
            free = _next_free(queue, taken)
            if free is not None and len(picked) < count:
                taken.update((free.hawaiian, free.english))
                picked.append(free)
    return picked


def _next_free(queue: list[Pair], taken: set[str]) -> Pair | None:
    while queue:
        pair = queue.pop()
        if pair.hawaiian not in taken and pair.english not in taken:
            return pair
    return None
