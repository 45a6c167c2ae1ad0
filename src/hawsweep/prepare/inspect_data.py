"""Inspects a data set before a sweep: columns, lengths, duplicates, leaks."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.augment import augment
from hawsweep.data.columns import Columns
from hawsweep.data.leaks import Leak, find_leaks
from hawsweep.data.load import load_data
from hawsweep.data.normal_text import Writing, folded
from hawsweep.data.records import Record
from hawsweep.data.tokens import encode
from hawsweep.models import resolve
from hawsweep.models.chat_template import ChatTemplate
from hawsweep.models.load import load_template
from hawsweep.planning.workload import workload
from hawsweep.scoring.embedding import Embedder, prompt_of
from hawsweep.scoring.score import reference_of
from hawsweep.spec.sweep import SweepSpec
from hawsweep.text import SayProgress

SPLITS = ("train", "valid", "test")
# Longer than any example: nothing is cut.
UNCUT = 2**24


@dataclass(frozen=True)
class SplitView:
    """One split.

    Attributes:
        n_repeated: Records whose source and answer occur before in the split, in whatever Unicode
            form and with whatever character as the okina.
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
        warnings: What is not learned as it stands in the records, in sentences.
        writing: How the texts of all splits are written.
        columns: See ``load.Splits``.
        groups: How many records have each group.
        variants: How many variants of training records each ``augment.name`` makes.
        unread: See ``Embedder.unread``; of the validation split.
    """

    splits: Mapping[str, SplitView]
    leaks: tuple[Leak, ...]
    lengths: npt.NDArray[np.integer[Any]]
    n_targets: npt.NDArray[np.integer[Any]]
    how: str
    is_tokenized: bool
    warnings: tuple[str, ...] = ()
    writing: Writing = field(default_factory=Writing)
    columns: Mapping[str, Columns] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    variants: Mapping[str, int] = field(default_factory=dict)
    unread: str | None = None

    def count(self, split: str) -> int:
        """Records of a split; 0 where there is none."""
        return self.splits[split].n_records if split in self.splits else 0

    def n_longer(self, max_seq_length: int) -> int:
        """Training examples that would be truncated."""
        return int((self.lengths > max_seq_length).sum())


def inspect_data(
    spec: SweepSpec, template: ChatTemplate | None, progress: SayProgress = lambda _: None
) -> DataView:
    """Inspect the data of a sweep.

    Args:
        template: The model's; None if it is not on this machine: lengths are then estimated.

    Raises:
        DataError: It cannot be found, read or used, a record to be scored has no answer, or one
            does not keep the template's contract.
        SpecError: A function that ``augment.name`` names is not there.
    """
    splits = load_data(spec.data, progress)
    warnings: list[str] = []
    uncut = spec.train.model_copy(update={"max_seq_length": UNCUT})
    if template is None:
        _check_answers(chain(splits.valid, splits.test))
        work = workload(spec.model_copy(update={"train": uncut}))
        lengths, n_targets = work.lengths, work.n_targets
        how = "estimated from characters: the model's tokenizer is not here"
    else:
        progress("counting tokens")
        found = {}
        for name in SPLITS:
            if name != "train":  # what is scored
                _check_answers(getattr(splits, name))
            if records := getattr(splits, name):
                found[name] = encode(records, template, uncut)
                warnings += [f"{name}: {each}" for each in found[name].warnings]
        lengths, n_targets = found["train"].examples.lengths, found["train"].examples.n_targets
        how = "by the model's tokenizer"
    progress("looking for duplicates and leaks")
    writing, groups = Writing(), Counter[str]()
    views = {
        name: _view(each, writing, groups) for name in SPLITS if (each := getattr(splits, name))
    }
    leaks = tuple(find_leaks(splits))
    return DataView(
        views,
        leaks,
        lengths,
        n_targets,
        how,
        template is not None,
        tuple(warnings),
        writing,
        splits.columns,
        groups,
        augment(spec, splits.train).counts(),
        _unread(spec, splits.valid),
    )


def _unread(spec: SweepSpec, valid: Iterable[Record]) -> str | None:
    path = resolve.find_embedder(spec.scoring.embedder)
    if path is None or spec.scoring.metric != "semantic_similarity":
        return None
    return Embedder(path, prompt_of(spec.scoring)).unread(list(map(reference_of, valid)))


def _check_answers(records: Iterable[Record]) -> None:
    for record in records:
        reference_of(record)


def find_template(
    path: Path | None, *, trust_remote_code: bool, progress: SayProgress = lambda _: None
) -> ChatTemplate | None:
    """The contract of a model's chat template; None where there is no model's folder.

    Raises:
        ModelError: See ``load_template``.
    """
    if path is None:
        return None
    progress("reading the tokenizer")
    return load_template(path, trust_remote_code=trust_remote_code)


def _view(records: Iterable[Record], writing: Writing, groups: Counter[str]) -> SplitView:
    seen: set[tuple[str, str]] = set()
    n_records = n_repeated = n_empty = 0
    for record in records:
        text = str(record.content.get("text", ""))
        for each in record.texts:
            writing.add(each)
        if record.group is not None:
            groups[record.group] += 1
        pair = (folded(record.source or text), folded(record.reference or text))
        n_records += 1
        n_repeated += pair in seen
        n_empty += not all(part.strip() for part in pair)
        seen.add(pair)
    return SplitView(n_records, n_repeated, n_empty)
