"""Inspects a data set before a sweep: columns, lengths, duplicates, leaks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.csv_file import open_csv
from hawsweep.data.leaks import Leak, find_leaks
from hawsweep.data.load import Splits, csv_path, load_data, named_columns
from hawsweep.data.normal_text import Writing, folded
from hawsweep.data.records import Record
from hawsweep.data.tokens import encode
from hawsweep.errors import DataError
from hawsweep.models.chat_template import ChatTemplate
from hawsweep.models.load import load_template
from hawsweep.planning.workload import workload
from hawsweep.scoring.score import reference_of
from hawsweep.spec.sweep import SweepSpec
from hawsweep.text import SayProgress

SPLITS = ("train", "valid", "test")
# Usual names of columns of translations, in lower case.
_SOURCES = ("source", "src", "input", "prompt", "question", "hawaiian", "haw", "hwn", "original")
_TARGETS = ("target", "tgt", "output", "completion", "answer", "english", "eng", "en", "reference")
_ROWS_LOOKED_AT = 200
_LINES_NAMED = 8
# Longer than any example: nothing is cut.
UNCUT = 2**24


@dataclass(frozen=True)
class Columns:
    """The columns taken of a CSV.

    Attributes:
        why: The reason for the choice, in words.
        others: Columns that are not used.
    """

    source: str
    target: str
    why: str
    others: tuple[str, ...] = ()


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
    """

    splits: Mapping[str, SplitView]
    leaks: tuple[Leak, ...]
    lengths: npt.NDArray[np.integer[Any]]
    n_targets: npt.NDArray[np.integer[Any]]
    how: str
    is_tokenized: bool
    warnings: tuple[str, ...] = ()
    writing: Writing = field(default_factory=Writing)

    def count(self, split: str) -> int:
        """Records of a split; 0 where there is none."""
        return self.splits[split].n_records if split in self.splits else 0

    def n_longer(self, max_seq_length: int) -> int:
        """Training examples that would be truncated."""
        return int((self.lengths > max_seq_length).sum())


def choose_columns(path: Path, source: str | None = None, target: str | None = None) -> Columns:
    """The columns of texts and translations: those asked for, else by usual names, else the first
    two that hold words.

    Raises:
        DataError: There are not two such columns, or one that was asked for is missing.
    """
    with open_csv(path) as (columns, rows):
        cells = [row for _, row in islice(rows, _ROWS_LOOKED_AT)]
    for option, column in (("--source", source), ("--target", target)):
        if column is not None and column not in columns:
            raise DataError(
                f"{path} has no column {column!r} ({option}). Its columns: "
                f"{', '.join(columns)[:500]}."
            )
    texts = [name for name in columns if _holds_words(row[name] for row in cells)]
    free = [name for name in texts if name not in (source, target)]
    named = [name for name in columns if name not in (source, target)]
    by_name = [_called(_SOURCES, named), _called(_TARGETS, named)]
    if source and target:
        why = "asked for"
    else:
        is_named = all((source or by_name[0], target or by_name[1]))
        why = "by their names" if is_named else "the first that hold words"
    first = source or by_name[0] or next((n for n in free if n not in (target, by_name[1])), None)
    second = target or by_name[1] or next((n for n in free if n not in (first, source)), None)
    if first is None or second is None or first == second:
        raise DataError(
            f"{path} has {len(texts)} columns that hold words, needs two: the text and its "
            f"translation. Its columns: {', '.join(columns)[:500] or 'none'}. Name them with "
            "--source and --target."
        )
    others = tuple(name for name in columns if name not in (first, second))
    return Columns(first, second, why, others)


def check_rows(path: Path, source: str, target: str) -> int:
    """The number of rows of a CSV that are not empty.

    Raises:
        DataError: Rows lack a text or its translation; the message has their first line numbers.
    """
    with open_csv(path) as (_, rows):
        cells = [(line, bool(row[source].strip()), bool(row[target].strip())) for line, row in rows]
    lacking = [line for line, *full in cells if not all(full)]
    if lacking:
        named = ", ".join(map(str, lacking[:_LINES_NAMED]))
        more = f" and {len(lacking) - _LINES_NAMED} more" if len(lacking) > _LINES_NAMED else ""
        raise DataError(
            f"{path}: {len(lacking)} of {len(cells)} rows have an empty {source} or {target}, in "
            f"line {named}{more}. Fill or remove them."
        )
    return len(cells)


def inspect_data(
    spec: SweepSpec, template: ChatTemplate | None, progress: SayProgress = lambda _: None
) -> DataView:
    """Inspect the data of a sweep.

    Args:
        template: The model's; None if it is not on this machine: lengths are then estimated.

    Raises:
        DataError: It cannot be found, read or used, a record to be scored has no answer, or one
            does not keep the template's contract.
    """
    for each in spec.data:
        if path := csv_path(each.path):
            with open_csv(path) as (columns, _):
                chosen = named_columns(path, each, columns)
            check_rows(path, *chosen)
    splits = load_data(spec.data, progress)
    warnings: list[str] = []
    if template is None:
        _check_answers(splits)
        uncut = spec.train.model_copy(update={"max_seq_length": UNCUT})
        work = workload(spec.model_copy(update={"train": uncut}))
        lengths, n_targets = work.lengths, work.n_targets
        how = "estimated from characters: the model's tokenizer is not here"
    else:
        progress("counting tokens")
        found = {}
        for name in SPLITS:
            if name == "valid":
                _check_answers(splits)
            if records := getattr(splits, name):
                found[name] = encode(
                    records,
                    template,
                    max_seq_length=UNCUT,
                    mask_prompt=spec.train.mask_prompt,
                )
                warnings += [f"{name}: {each}" for each in found[name].warnings]
        lengths, n_targets = found["train"].examples.lengths, found["train"].examples.n_targets
        how = "by the model's tokenizer"
    progress("looking for duplicates and leaks")
    writing = Writing()
    views = {name: _view(each, writing) for name in SPLITS if (each := getattr(splits, name))}
    leaks = tuple(find_leaks(splits))
    is_tokenized = template is not None
    return DataView(views, leaks, lengths, n_targets, how, is_tokenized, tuple(warnings), writing)


def _check_answers(splits: Splits) -> None:
    for record in chain(splits.valid, splits.test):
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


def _view(records: Iterable[Record], writing: Writing) -> SplitView:
    seen: set[tuple[str, str]] = set()
    n_records = n_repeated = n_empty = 0
    for record in records:
        text = str(record.content.get("text", ""))
        for each in record.texts:
            writing.add(each)
        pair = (folded(record.source or text), folded(record.reference or text))
        n_records += 1
        n_repeated += pair in seen
        n_empty += not all(part.strip() for part in pair)
        seen.add(pair)
    return SplitView(n_records, n_repeated, n_empty)


def _holds_words(cells: Iterable[str]) -> bool:
    filled = [cell for cell in cells if cell.strip()]
    n_wordy = sum(0 < sum(map(str.isalpha, cell)) >= sum(map(str.isdigit, cell)) for cell in filled)
    return n_wordy * 2 > len(filled)


def _called(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The first column with one of the names, the surest name first."""
    lower = {column.strip().lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)
