"""More from few training records: the other direction, another writing, a function of one's own."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.json_line import SYSTEM_ROLES, as_chat
from hawsweep.data.load import nested_indices
from hawsweep.data.normal_text import nfc, without_diacritics
from hawsweep.data.records import Record, Records, concatenate, store_records
from hawsweep.errors import DataError
from hawsweep.machine.own_code import load_function
from hawsweep.spec.space import choices_of
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec

NONE, REVERSE, DIACRITICS = "none", "reverse", "diacritics"
SOURCE = "{source}"
_NEEDS = {DIACRITICS: ", with an ʻokina or a kahakō in the question"}

# From source and reference to those of the variant; None where there is none.
_Change = Callable[[str, str], tuple[str, str] | None]


@dataclass(frozen=True)
class Augmented:
    """Training records and the variants that a sweep's trials may train on beside them.

    Attributes:
        records: The training records, then the variants of all kinds.
        origins: The training record that each is or comes from, ``[records]``.
        kinds: The ``augment.name`` that each belongs to, ``[records]``; ``none`` for the training
            records themselves.
    """

    records: Records
    origins: npt.NDArray[np.intp]
    kinds: npt.NDArray[np.str_]

    def chosen(
        self, record_indices: npt.NDArray[np.int32], train: TrainSpec, seed: int
    ) -> npt.NDArray[np.intp]:
        """The training examples of a trial with these settings, as indices in order.

        Args:
            record_indices: Which of ``records`` each example is, ``[examples]``.
            seed: The sweep's. More examples, and a larger share, hold the fewer.
        """
        kinds, origins = self.kinds[record_indices], self.origins[record_indices]
        plain = np.flatnonzero(kinds == NONE)
        taken = plain[nested_indices(len(plain), train.max_train_samples or len(plain), seed)]
        asked = train.augment
        if asked.name == NONE:
            return taken
        lots = np.random.default_rng([seed, 1]).random(len(self.records))
        is_varied = (kinds == asked.name) & (lots[origins] < asked.share)
        varied = np.flatnonzero(is_varied & np.isin(origins, origins[taken]))
        if asked.in_place:
            taken = taken[~np.isin(origins[taken], origins[varied])]
        return np.sort(np.concatenate([taken, varied]))

    def counts(self) -> dict[str, int]:
        """Variants of each kind."""
        return {kind: n for kind, n in Counter(self.kinds.tolist()).items() if kind != NONE}

    def is_plain(self, record_indices: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Which examples are of the training records themselves, ``[examples]``."""
        return np.equal(self.kinds[record_indices], NONE)


def augment(spec: SweepSpec, records: Records) -> Augmented:
    """Make the variants of training records that the trials of a sweep may train on.

    Raises:
        DataError: No record has a variant, or a person's function fails with one.
        SpecError: There is no such function.
    """
    names = choices_of(spec.search.get("augment.name"), spec.train.augment.name)
    parts, origins = [records], [np.arange(len(records))]
    kinds = [NONE] * len(records)
    for name in map(str, names):
        if name == NONE:
            continue
        made = [(at, each) for at, each in enumerate(_variants(spec, name, records)) if each]
        if not made:
            raise DataError(
                f"train.augment.name is {name}, but no training record has such a variant: it "
                f"needs a question and its answer{_NEEDS.get(name, '')}. Remove train.augment."
            )
        parts.append(_stored(name, records, made))
        origins.append(np.array([at for at, _ in made]))
        kinds += [name] * len(made)
    return Augmented(concatenate(parts), np.concatenate(origins), np.array(kinds))


def _stored(name: str, records: Records, made: Sequence[tuple[int, dict[str, Any]]]) -> Records:
    """The variants, each in the place of its record for messages."""
    parts = []
    for file, of_file in groupby(made, key=lambda each: records[each[0]].where.rsplit(":", 1)[0]):
        placed = [(records[at], content) for at, content in of_file]
        numbered = ((int(each.where.rsplit(":", 1)[1]), content) for each, content in placed)
        key = placed[0][0].group_key
        parts.append(store_records(numbered, f"{file} ({name})", group_key=key))
    return concatenate(parts)


def _variants(
    spec: SweepSpec, name: str, records: Sequence[Record]
) -> Iterator[dict[str, Any] | None]:
    """The variant of each record; None where it has none."""
    change = _change(name)
    prompts = [_ends(each.prompt) for each in spec.data]
    other = _ends(spec.train.augment.prompt or SOURCE) if name == REVERSE else None
    for record in records:
        messages = record.messages or []
        system = [each for each in messages if each["role"] in SYSTEM_ROLES]
        if [each["role"] for each in messages[len(system) :]] != ["user", "assistant"]:
            yield None
            continue
        message, reference = (str(each["content"]) for each in messages[len(system) :])
        fitting = [each for each in prompts if _is_within(message, each)]
        ends = max(fitting, key=lambda each: len(each[0]) + len(each[1]), default=("", ""))
        try:
            made = change(message.removeprefix(ends[0]).removesuffix(ends[1]), reference)
        except DataError as fault:
            raise DataError(f"{record.where}: {fault}") from fault
        if made is None:
            yield None
            continue
        before, after = other or ends
        question = {"role": "user", "content": f"{before}{made[0]}{after}"}
        answer = {"role": "assistant", "content": made[1]}
        # The system message may say in which direction to translate.
        kept = [] if other else system
        yield {**as_chat(record.content), "messages": [*kept, question, answer]}


def _ends(prompt: str) -> tuple[str, str]:
    before, _, after = prompt.partition(SOURCE)
    return before, after


def _is_within(message: str, ends: tuple[str, str]) -> bool:
    return message.startswith(ends[0]) and message.endswith(ends[1])


def _change(name: str) -> _Change:
    if name == REVERSE:
        return lambda source, reference: (reference, source)
    if name == DIACRITICS:
        return _plainly_written
    key = "train.augment.name"
    function = load_function(key, name, (NONE, REVERSE, DIACRITICS))

    def change(source: str, reference: str) -> tuple[str, str] | None:
        try:
            made = function(source, reference)
        except Exception as fault:  # whatever a person's code does
            raise DataError(f"{key} {name} fails: {fault!r}.") from fault
        if made is None:
            return None
        if not isinstance(made, tuple | list) or list(map(type, made)) != [str, str]:
            raise DataError(
                f"{key} {name} gives {repr(made)[:80]}, must be a source and a reference, or None."
            )
        return made[0], made[1]

    return change


def _plainly_written(source: str, reference: str) -> tuple[str, str] | None:
    plain = without_diacritics(source)
    return None if plain == nfc(source) else (plain, reference)
