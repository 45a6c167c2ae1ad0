"""A data reference becomes train, valid and test records.

A reference is a bundled name, a folder with ``{train,valid,test}.jsonl`` in mlx-lm's formats, a
file of pairs or records, or a Hugging Face data set. Records: records.py. Their tokens: tokens.py.
"""

import hashlib
import os
import random
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data import parquet
from hawsweep.data.columns import GROUP, Columns, open_pairs
from hawsweep.data.normal_text import folded, mend
from hawsweep.data.record_file import RECORD_FILES, holds_records, read_record_file
from hawsweep.data.records import (
    Record,
    Records,
    concatenate,
    read_records,
    store_records,
    write_records,
)
from hawsweep.data.table import TEXT_TABLES
from hawsweep.errors import DataError
from hawsweep.files import replacing
from hawsweep.models.hub import NotFoundOnHub, cache_path, fetch, here, is_path
from hawsweep.spec.sweep import DataSpec
from hawsweep.text import SayProgress

BUNDLED = ("phrasebook",)
_FILES = (*TEXT_TABLES, *RECORD_FILES, parquet.SUFFIX)
# The most records of one source that stay together: these, or a tenth of the smaller split.
_MOST_OF_ONE_SOURCE = 5
_SPLIT_FILES = {"train": ("train",), "valid": ("valid", "validation", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Splits:
    """A data set, or several as one.

    Attributes:
        test: May be empty.
        folder: The folder in which mlx-lm reads the same splits; None without such a folder.
        weights: How often each training record comes in an epoch, ``[records]``; None: each once.
        columns: Those taken of each table among the data sets, by its path.
    """

    train: Records
    valid: Records
    test: Records
    folder: Path | None = None
    weights: npt.NDArray[np.float32] | None = None
    columns: Mapping[str, Columns] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, str]:
        """Number of records and content hash of each split."""
        return {name: getattr(self, name).fingerprint for name in _SPLIT_FILES}

    def write(self, folder: Path) -> None:
        """Write the splits for mlx-lm. It has no weights: each record is written once."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _SPLIT_FILES:
            write_records(getattr(self, name), folder / f"{name}.jsonl")


def is_local(reference: str) -> bool:
    """Whether a data reference needs no network: a bundled name, or a path on this machine."""
    return reference in BUNDLED or os.path.lexists(here(reference))


def data_file(reference: str) -> Path | None:
    """The file that a data reference names, which is split here; None where it names something
    else.
    """
    path = here(reference)
    return path if path.suffix.lower() in _FILES and _is_no_folder(path) else None


def _is_no_folder(path: Path) -> bool:
    """Whether there is anything else. Reading says if it is no regular file."""
    return os.path.lexists(path) and not os.path.isdir(path)


def is_table(path: Path, source: str | None = None, target: str | None = None) -> bool:
    """Whether a file has columns to choose from; with ``source`` or ``target``, whether it may.

    Raises:
        DataError: It is a Parquet file that cannot be read.
    """
    if path.suffix.lower() != parquet.SUFFIX:
        return path.suffix.lower() in TEXT_TABLES
    return bool(source or target) or not holds_records(path)


def load_data(specs: Sequence[DataSpec], progress: SayProgress = lambda _: None) -> Splits:
    """Find and check the data sets; the splits of several are concatenated in order.

    A folder in a list may lack ``valid.jsonl`` where another data set has validation records.

    Raises:
        DataError: A data set is not found, a record is broken, or there are no records to train or
            validate on. The message names the file and the line.
    """
    sets = _read_all(specs, progress)
    splits = sets[0] if len(sets) == 1 else _concatenate(sets)
    for name in ("train", "valid"):
        if not getattr(splits, name):
            raise DataError(_explain_empty(name, specs))
    if all(spec.weight in (0, 1) for spec in specs):
        return splits
    weights = np.array([spec.weight for spec in specs], np.float32)
    return replace(splits, weights=np.repeat(weights, [len(each.train) for each in sets]))


def count_by_source(specs: Sequence[DataSpec]) -> list[int]:
    """The training records of each data set.

    Raises:
        DataError: See ``load_data``.
    """
    counted = [spec.model_copy(update={"weight": 1.0}) for spec in specs]
    return [len(each.train) for each in _read_all(counted, lambda _: None)]


def _read_all(specs: Sequence[DataSpec], progress: SayProgress) -> list[Splits]:
    sets = (_read(spec, progress, is_alone=len(specs) == 1) for spec in specs)
    return [
        each if spec.weight else replace(each, train=Records(), folder=None)
        for spec, each in zip(specs, sets, strict=True)
    ]


def choose_subset(records: Records, max_records: int, seed: int) -> Records:
    """A seeded subset of at most ``max_records`` records, in their order."""
    return records.take(choose_indices(len(records), max_records, seed))


def choose_indices(n: int, n_most: int, seed: int) -> list[int]:
    """A seeded choice of at most ``n_most`` out of ``range(n)``, in order."""
    return sorted(random.Random(seed).sample(range(n), n_most)) if n > n_most else list(range(n))


def nested_indices(n: int, size: int, seed: int) -> npt.NDArray[np.intp]:
    """A seeded choice of ``size`` out of ``range(n)``, in order, which holds that of any smaller
    size.
    """
    if size >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).permutation(n)[:size])


def _read(spec: DataSpec, progress: SayProgress, *, is_alone: bool) -> Splits:
    needed = ("train", "valid") if is_alone else ("train",)
    path = here(spec.path)
    if spec.path in BUNDLED:
        return _read_folder(
            Path(str(resources.files("hawsweep"))) / "data" / spec.path, spec, needed
        )
    if spec.revision is not None and os.path.exists(path):
        raise DataError(
            f"{path} is on this machine, and data.revision is {spec.revision!r}: only a Hugging "
            "Face data set has revisions. Remove the key."
        )
    if os.path.isdir(path):
        return _read_folder(path, spec, needed)
    if data_file(spec.path):
        return _read_file(path, spec)
    if _is_no_folder(path):
        raise DataError(
            f"The data {spec.path!r} was not found: the file of that name is none that is read "
            f"({', '.join(_FILES)}). Save it as one of these."
        )
    is_file = path.suffix.lower() in _FILES and spec.revision is None
    if is_path(spec.path) or is_file:
        raise DataError(
            f"The data {spec.path!r} was not found: there is no folder or file {path.absolute()}. "
            "Check the spelling, or put the data there."
        )
    return _read_folder(_download(spec, progress), spec, needed)


def _concatenate(sets: Sequence[Splits]) -> Splits:
    return Splits(
        concatenate([each.train for each in sets]),
        concatenate([each.valid for each in sets]),
        concatenate([each.test for each in sets]),
        columns={path: columns for each in sets for path, columns in each.columns.items()},
    )


def _explain_empty(split: str, specs: Sequence[DataSpec]) -> str:
    if len(specs) > 1:
        paths = ", ".join(spec.path for spec in specs)
        return f"The split {split} is empty in all of {paths}. Put at least one record in one."
    remedy = "Put at least one record in it."
    if data_file(specs[0].path):
        remedy = "Add records, or change data.valid_fraction and data.test_fraction."
    return f"{specs[0].path}: the split {split} is empty. {remedy}"


def _read_folder(folder: Path, spec: DataSpec, needed: Sequence[str]) -> Splits:
    found: dict[str, Records] = {}
    for split, names in _SPLIT_FILES.items():
        paths = [path for name in names if os.path.lexists(path := folder / f"{name}.jsonl")]
        if not paths and split in needed:
            there = ", ".join(sorted(_names(folder))[:10]) or "nothing"
            files = " and ".join(f"{name}.jsonl" for name in needed)
            alone = f", or name {folder / 'train.jsonl'} alone: a file is split here"
            raise DataError(
                f"{folder} has no {split}.jsonl; it has {there}. Put {files} there"
                f"{alone if split == 'valid' else ''}."
            )
        group = spec.group or GROUP
        found[split] = read_records(paths[0], spec.normalize, group) if paths else Records()
    _check_group(found.values(), str(folder), spec)
    plain = all(not (folder / f"{s}.jsonl").exists() or found[s].is_plain for s in found)
    as_mlx_lm = plain and (folder / "valid.jsonl").exists()
    return Splits(found["train"], found["valid"], found["test"], folder if as_mlx_lm else None)


def _check_group(splits: Collection[Records], name: str, spec: DataSpec) -> None:
    """Refuse a key of groups that no record has."""
    known = [record for records in splits for record in records[:1]]
    if spec.group and known and all(each.group is None for split in splits for each in split):
        keys = ", ".join(known[0].content)[:200]
        raise DataError(
            f"{name}: no record has the key {spec.group!r} (data.group). The keys of the first: "
            f"{keys}."
        )


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as fault:
        raise DataError(f"{folder} cannot be read: {fault.strerror}.") from fault


def _read_file(path: Path, spec: DataSpec) -> Splits:
    columns: dict[str, Columns] = {}
    if is_table(path, spec.source, spec.target):
        with open_pairs(path, spec.source, spec.target, spec.group) as (chosen, numbered):
            pairs = ((line, _pair(row, chosen, spec)) for line, row in numbered)
            records = store_records(pairs, str(path), spec.normalize)
        columns[spec.path] = chosen
    elif spec.source or spec.target:
        raise DataError(
            f"{path} is no table: data.source and data.target name columns. Remove them, and name "
            "the keys prompt and completion; or save it as a CSV."
        )
    else:
        records = read_record_file(path, spec.normalize, spec.group or GROUP)
        _check_group([records], str(path), spec)
    order = array("q", range(len(records)))
    random.Random(spec.seed).shuffle(order)
    n_valid, n_test = (
        round(len(records) * share) for share in (spec.valid_fraction, spec.test_fraction)
    )
    ordered, (valid_end, test_end) = np.asarray(order), (n_valid, n_valid + n_test)
    if spec.split_by == "source":
        largest = max(_MOST_OF_ONE_SOURCE, min(n_valid, n_test or n_valid) // 10)
        ordered, sources = _by_source(records, ordered, largest)
        valid_end = _end_of_part(sources, 0, valid_end)
        test_end = _end_of_part(sources, valid_end, test_end) if n_test else valid_end
    return Splits(
        records.take(ordered[test_end:]),
        records.take(ordered[:valid_end]),
        records.take(ordered[valid_end:test_end]),
        columns=columns,
    )


def _by_source(
    records: Records, order: npt.NDArray[np.int64], largest: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The records in that order, but those of one source together where their first record stands,
    and a number for each one's source.

    Args:
        largest: Sources with more records are instructions; these stay apart.
    """
    keys = np.fromiter((_key_of(record) for record in records), np.uint64, len(records))
    _, first, which, n = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    alone = np.arange(len(records))
    sources = np.where((n[which] > largest) | (keys == 0), alone, first[which])
    place = np.empty_like(order)
    place[order] = alone
    # By the first in the file: the first in this order would put large sources in front.
    together = np.argsort(place[sources][order], kind="stable")
    return order[together], sources[order][together]


def _key_of(record: Record) -> int:
    """A number for what a record asks; 0 of plain text."""
    asked = record.messages or []
    if asked and asked[-1]["role"] == "assistant":
        asked = asked[:-1]
    text = folded("\0".join(f"{each['role']}\0{each['content']}" for each in asked))
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) if text else 0


def _end_of_part(sources: npt.NDArray[np.int64], start: int, end: int) -> int:
    """Where the source at ``end`` begins; where it ends, if else nothing is left of the part; or
    ``end``, if then nothing is left to train on.
    """

    def is_within(at: int) -> bool:
        return start < at < len(sources) and bool(sources[at] == sources[at - 1])

    whole = end
    while is_within(whole):
        whole -= 1
    if whole == start < end:
        whole = end
        while is_within(whole):
            whole += 1
    return whole if whole < len(sources) else end


def prompt_of(source: str, spec: DataSpec) -> str:
    """The user's message for a text of a table."""
    # By itself: in a prompt of another language an okina may not be known as one.
    return spec.prompt.replace("{source}", mend(source, spec.normalize))


def _pair(row: Mapping[str, str], columns: Columns, spec: DataSpec) -> dict[str, Any]:
    pair = {"prompt": prompt_of(row[columns.source], spec), "completion": row[columns.target]}
    group = "" if columns.group is None else row[columns.group]
    return {**pair, GROUP: group} if group else pair


def _download(spec: DataSpec, progress: SayProgress) -> Path:
    repo = spec.path
    try:
        folder = fetch(repo, "dataset", ["*.jsonl"], progress, spec.revision)
    except NotFoundOnHub as fault:
        raise DataError(
            f"The data {repo!r} was not found. Looked for: a bundled name ({', '.join(BUNDLED)}); "
            f"a folder or a file ({', '.join(_FILES)}) at {here(repo).absolute()}; "
            f"the Hugging Face cache {cache_path()}; {fault}."
            + " Name a revision by data.revision."
            * ("@" in repo)
        ) from fault
    if (folder / "train.jsonl").exists():
        return folder
    return _export_with_datasets(repo, spec.revision)


def _export_with_datasets(repo: str, revision: str | None) -> Path:
    # The library `datasets` reads Parquet and applies loading rules.
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as fault:
        raise DataError(
            f"The data set {repo!r} has no train.jsonl. "
            "To read other formats: pip install datasets."
        ) from fault
    from hawsweep.machine.backend import cache_dir

    try:
        loaded = datasets.load_dataset(repo, revision=revision)
    except Exception as fault:  # each data set's code raises its own classes
        raise DataError(f"The data set {repo!r} cannot be loaded: {fault}") from fault
    name = repo if revision is None else f"{repo}@{revision}"
    folder = cache_dir() / "data" / name.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    for split in loaded:
        with replacing(folder / f"{split}.jsonl") as beside:  # others may read the former one
            loaded[split].to_json(str(beside))
    return folder
