"""Expand, split and write the phrase book: ``python -m phrasebook.generate [FOLDER]``.

The bytes are the same on every Python from 3.11: what is drawn or shuffled is sorted by SHA-256.

The split
    By sentence; neither a Hawaiian nor an English text is in two splits. Of each group one sentence
    in eleven goes to valid and as many to test. Every Hawaiian word of valid and test occurs in
    train, so a sentence with a word of its own stays in train. Each file is in a fixed shuffled
    order: any prefix is mixed across the groups.

The compositional hold-out
    ``HELD_OUT`` lists pairs of Hawaiian words, such as a verb and one of its objects. A sentence
    that has both words of a pair, wherever they stand, is in test or nowhere; each of the two
    words is in train with other partners. They are over a third of test, and ``is_held_out``
    tells them from the rest, which is drawn as valid is. So test tells apart what a model
    makes of known combinations and of new ones.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from phrasebook.grammar import GROUPS, expand
from phrasebook.holdout import HELD_OUT, is_held_out, words
from phrasebook.pairs import Pair, digest

from hawsweep.data import phrasebook

__all__ = ["HELD_OUT", "SPLITS", "SYSTEM", "build", "is_held_out", "words", "write"]

SYSTEM = "Translate Hawaiian to English."
SPLITS = ("train", "valid", "test")
SHARE = 1 / 11
"""Of each group, what goes to valid, and what to test."""


def build() -> dict[str, list[dict[str, object]]]:
    """Return the records of each split, in the order they are written."""
    return {split: [_record(pair) for pair in pairs] for split, pairs in _split().items()}


def write(folder: Path) -> None:
    """Write a ``.jsonl`` file per split into ``folder``, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, records in build().items():
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def _record(pair: Pair) -> dict[str, object]:
    turns = (("system", SYSTEM), ("user", pair.hawaiian), ("assistant", pair.english))
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, "group": pair.group}


def _split() -> dict[str, list[Pair]]:
    book = expand()
    splits: dict[str, list[Pair]] = {"train": [], "valid": [], "test": list(book.held_out)}
    left = Counter(word for pair in book.known for word in set(words(pair.hawaiian)))
    for group in GROUPS:
        members = [pair for pair in book.known if pair.group == group]
        held_out = [pair for pair in book.held_out if pair.group == group]
        share = round((len(members) + len(held_out)) * SHARE)
        wanted = {"test": max(share - len(held_out), 0), "valid": share}
        for pair in sorted(members, key=lambda member: digest(f"split {member.hawaiian}")):
            splits[_place(pair, wanted, left)].append(pair)
    return {
        split: sorted(pairs, key=lambda pair: digest(f"order {pair.hawaiian}"))
        for split, pairs in splits.items()
    }


def _place(pair: Pair, wanted: dict[str, int], left: Counter[str]) -> str:
    """Return the split of a pair, given how many each still wants; both counters are kept up.

    Args:
        left: Per word, how many sentences not in valid or test have it.
    """
    own_words = set(words(pair.hawaiian))
    for split, count in wanted.items():
        if count and all(left[word] > 1 for word in own_words):
            wanted[split] -= 1
            left.subtract(own_words)
            return split
    return "train"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(phrasebook.__file__).parent)
