"""Inspects a data set before a sweep: columns, lengths, duplicates, leaks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.columns import Columns
from hawsweep.data.leaks import Leak, find_leaks
from hawsweep.data.load import Splits, choose_subset, load_data
from hawsweep.data.records import Record, Records
from hawsweep.data.tokens import encode
from hawsweep.planning.workload import workload
from hawsweep.spec.sweep import SweepSpec
from hawsweep.text import SayProgress

SPLITS = ("train", "valid", "test")
# The most records tokenized for their lengths; of more records a seeded subset is taken.
_MOST_TOKENIZED = 20_000
# Longer than any example: nothing is cut.
UNCUT = 2**24


@dataclass(frozen=True)
class SplitView:
    """One split.

    Attributes:
        n_repeated: Records whose source and answer occur before in the split.
        n_empty: Records with an empty source or answer.
    """

    n_records: int
    n_repeated: int
    n_empty: int


@dataclass(frozen=True)
class DataView:
    """The result of an inspection.

    Attributes:
        splits: The splits with records, by name.
        lengths: Tokens of each training example, uncut, ``[examples]``.
        n_targets: Tokens learned from in each, ``[examples]``.
        how: The origin of these numbers.
        is_tokenized: Whether the model's tokenizer counted them.
        has_answers: Whether each record has a reference answer.
        columns: See ``load.Splits``.
    """

    splits: Mapping[str, SplitView]
    leaks: tuple[Leak, ...]
    lengths: npt.NDArray[np.integer[Any]]
    n_targets: npt.NDArray[np.integer[Any]]
    how: str
    is_tokenized: bool
    has_answers: bool
    columns: Mapping[str, Columns] = field(default_factory=dict)

    def count(self, split: str) -> int:
        """Records of a split; 0 where there is none."""
        return self.splits[split].n_records if split in self.splits else 0

    def n_longer(self, max_seq_length: int) -> int:
        """Training examples that would be truncated."""
        return int((self.lengths > max_seq_length).sum())


def inspect_data(
    spec: SweepSpec, tokenizer: Any | None, progress: SayProgress = lambda _: None
) -> DataView:
    """Inspect the data of a sweep.

    Args:
        tokenizer: The model's; None if it is not on this machine: lengths are then estimated.

    Raises:
        DataError: It cannot be found, read or used.
    """
    splits = load_data(spec.data, progress)
    has_answers = all(record.reference is not None for record in splits.valid)
    if tokenizer is None:
        uncut = spec.train.model_copy(update={"max_seq_length": UNCUT})
        work = workload(spec.model_copy(update={"train": uncut}))
        lengths, n_targets = work.lengths, work.n_targets
        how = "estimated from characters: the model's tokenizer is not here"
    else:
        progress("counting tokens")
        lengths, n_targets = _count_tokens(splits, tokenizer, spec.train.mask_prompt)
        how = "by the model's tokenizer"
    progress("looking for duplicates and leaks")
    views = {name: _view(records) for name in SPLITS if (records := getattr(splits, name))}
    leaks = tuple(find_leaks(splits))
    is_tokenized = tokenizer is not None
    return DataView(
        views, leaks, lengths, n_targets, how, is_tokenized, has_answers, splits.columns
    )


def find_tokenizer(path: Path | None, progress: SayProgress = lambda _: None) -> Any:
    """The tokenizer in a model's folder; None if it cannot be read."""
    if path is None:
        return None
    progress("reading the tokenizer")
    from hawsweep.machine.backend import mx  # noqa: F401 - before mlx_lm imports MLX

    from mlx_lm.utils import load_tokenizer

    try:
        return load_tokenizer(path)
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError):
        return None  # `start` names the fault


def _count_tokens(
    splits: Splits, tokenizer: Any, mask_prompt: bool
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    records: Records = choose_subset(splits.train, _MOST_TOKENIZED, 0)
    found = encode(records, tokenizer, max_seq_length=UNCUT, mask_prompt=mask_prompt).examples
    return found.lengths, found.n_targets


def _view(records: Iterable[Record]) -> SplitView:
    seen: set[tuple[str, str]] = set()
    n_records = n_repeated = n_empty = 0
    for record in records:
        text = str(record.content.get("text", ""))
        pair = (record.source or text, record.reference or text)
        n_records += 1
        n_repeated += pair in seen
        n_empty += not all(part.strip() for part in pair)
        seen.add(pair)
    return SplitView(n_records, n_repeated, n_empty)
