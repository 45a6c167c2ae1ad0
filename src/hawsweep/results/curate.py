"""Which training records harm: doubts from their texts and from a trained model's losses on them,
and the data set without those records.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.doubts import (
    FEWEST,
    Found,
    Pairs,
    doubts_of_texts,
    pairs_of,
    short,
)
from hawsweep.data.language import robust_z
from hawsweep.data.leaks import words_of
from hawsweep.data.load import BUNDLED, Splits, is_local
from hawsweep.data.records import Record, Records, write_records
from hawsweep.data.word_links import reads_much, word_evidence
from hawsweep.errors import DataError
from hawsweep.files import replace_text, replacing
from hawsweep.models.hub import here
from hawsweep.results.curate_proof import Proof
from hawsweep.spec.sweep import DataSpec

REMOVED_FILE = "removed.jsonl"
_SPLITS = ("train", "valid", "test")
Losses = npt.NDArray[np.float64]
# The share of references that are likelier after their own source, from which on the model reads
# the sources.
_READS = 0.8
# Deviations below the median, and the share of its loss that a source takes from its reference.
_FAR, _LITTLE = 2.25, 0.4
_UNREAD = "the trial's model does not read the sources well enough."


@dataclass(frozen=True)
class Doubtful:
    """A training record that is proposed to be left out.

    Attributes:
        at: Its place among the training records.
        where: File and line.
        information: What the model reads of the reference in its source, in nats; None where
            nothing was measured.
        reasons: Kinds of doubt, with a sentence each.
    """

    at: int
    where: str
    source: str
    reference: str
    information: float | None
    reasons: dict[str, str]


@dataclass(frozen=True)
class Curation:
    """A proposal: the records to leave out, the clearest first.

    Attributes:
        trial: Whose losses were used, of the study ``study``.
        unchecked: What could not be looked for, in sentences.
        folder: Of the proposed data set; None where nothing was written.
        is_ordered: Whether its records are ordered, the best first.
        proof: Whether it is better; None where that was not asked.
    """

    study: str
    trial: int
    n_records: int
    removed: tuple[Doubtful, ...]
    unchecked: tuple[str, ...]
    folder: str | None = None
    is_ordered: bool = False
    proof: Proof | None = None

    def counts(self) -> dict[str, int]:
        """Records by the kind of doubt; one may have several."""
        kinds = [kind for each in self.removed for kind in each.reasons]
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}

    def sentences(self) -> list[str]:
        """What is proposed, in words."""
        proved = () if self.proof is None else self.proof.sentences()
        if not self.removed:
            said = f"Nothing is proposed: none of {self.n_records:,} training records is doubtful."
            return [said, *self.unchecked, *proved]
        share = len(self.removed) / self.n_records
        said = (
            f"{len(self.removed):,} of {self.n_records:,} training records ({share:.1%}) are "
            "proposed to be left out."
        )
        return [said, *self.unchecked, *proved]

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        return {**asdict(self), "counts": self.counts(), "sentences": self.sentences()}


def curate(
    study: str,
    trial: int,
    splits: Splits,
    own: Losses,
    other: Losses,
) -> Curation:
    """Find the doubtful training records.

    Args:
        own: The loss of each reference after its own source, in nats, ``[records]``; NaN where it
            was not measured.
        other: After another record's source.
    """
    records = list(splits.train)
    pairs = pairs_of(records)
    information = other - own
    words = word_evidence(pairs)
    reasons: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for at, kind, said in chain(
        doubts_of_texts(pairs, records, splits),
        _conflicts(pairs, records, information),
        _unrelated(own, other, words),
    ):
        reasons[at].setdefault(kind, said)

    usual = _drop_usual(reasons, len(records))

    def doubtful(at: int) -> Doubtful:
        known = float(information[at])
        said = round(known, 4) if np.isfinite(known) else None
        return Doubtful(at, records[at].where, *pairs[at], said, reasons[at])

    clearest = sorted(reasons, key=lambda at: (-len(reasons[at]), information[at], at))
    return Curation(
        study,
        trial,
        len(records),
        tuple(map(doubtful, clearest)),
        (*usual, *_not_looked_for(information, words)),
    )


def _drop_usual(reasons: dict[int, dict[str, str]], n_records: int) -> list[str]:
    """Leave out kinds of doubt that most records give: such data are meant to be so."""
    counts = Counter(kind for each in reasons.values() for kind in each)
    usual = [kind for kind, n in counts.items() if 2 * n > n_records]
    for at, each in list(reasons.items()):
        for kind in usual:
            each.pop(kind, None)
        if not each:
            del reasons[at]
    return [
        f"Not proposed: {counts[kind]:,} of {n_records:,} records for {kind}, which is usual here."
        for kind in usual
    ]


def _conflicts(
    pairs: Pairs,
    records: Sequence[Record],
    information: Losses,
) -> Found:
    """Of records that ask the same and have several references those that follow much less."""
    if not _reads_sources(information):
        return
    asking_same: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for at, record in enumerate(records):
        if words := words_of(" ".join(record.texts[:-1])):
            asking_same[words].append(at)
    for group in asking_same.values():
        best = max(group, key=lambda at: np.nan_to_num(information[at], nan=-np.inf))
        for at in group if information[best] > 0 else ():
            if words_of(pairs[at][1]) != words_of(pairs[best][1]) and (
                information[at] < information[best] / 2
            ):
                yield (
                    at,
                    "conflict",
                    f"{short(records[best])} has the same source and a reference that follows "
                    "from it more clearly",
                )


def _reads_sources(information: Losses) -> bool:
    known = information[np.isfinite(information)]
    return len(known) >= FEWEST and float(np.mean(known > 0)) >= _READS


def _not_looked_for(information: Losses, words: Losses) -> Iterator[str]:
    if not _reads_sources(information):
        what = "Conflicting" if _reads_sources(words) else "Shuffled and conflicting"
        yield f"{what} references were not looked for: {_UNREAD}"


def _unrelated(own: Losses, other: Losses, words: Losses) -> Found:
    """References whose words do not go with their source's, and those that the model finds unlikely
    after their own source, hardly less than after another's.

    A shuffled pair's source is any source: it takes nothing from the loss of its reference. What
    the source takes away, less what is left, tells shuffled pairs from hard ones better than either
    alone. A reference whose words go well with its source's is only hard.
    """
    is_hard = np.ones(len(words), bool)
    if _reads_sources(words):
        for at in np.flatnonzero((words < 0) & (robust_z(words) < -_FAR)).tolist():
            yield at, "unrelated", "in other records its words do not go with those of its source"
        if reads_much(len(words)):
            is_hard = ~(words >= np.nanmedian(words))
    information = other - own
    if not _reads_sources(information):
        return
    shares = information / np.maximum(other, 1e-9)
    usual = float(np.nanmedian(shares))
    is_hard &= own > np.nanmedian(own)
    is_far = is_hard & (shares < _LITTLE) & (robust_z(information - own) < -_FAR)
    for at in np.flatnonzero(is_far).tolist():
        yield (
            at,
            "unrelated",
            f"beside another source, its own lowers the loss of its reference by {shares[at]:.0%}; "
            f"usual is {usual:.0%}",
        )


def proposal_folder(data: Sequence[DataSpec], ending: str) -> Path:
    """Where a proposal is written: beside data on this machine, else in the working folder."""
    path = Path(os.path.abspath(here(data[0].path)))
    if is_local(data[0].path) and data[0].path not in BUNDLED:
        return path.with_name(f"{path.stem if path.is_file() else path.name}-{ending}")
    return Path(f"{data[0].path.rpartition('/')[2]}-{ending}")


def check_no_weights(splits: Splits) -> None:
    """Refuse data that one folder cannot hold.

    Raises:
        DataError: A data set has a weight.
    """
    if splits.weights is not None:
        raise DataError("The data sets of the study have weights, which one folder cannot hold.")


def best_first(own: Losses, other: Losses) -> list[int]:
    """The places of the training records, those first whose source tells most of their reference.

    Args:
        own, other: See ``curate``. Records that were not measured come last.
    """
    shares = (other - own) / np.maximum(other, 1e-9)
    order: list[int] = np.argsort(-shares, kind="stable").tolist()  # NaN comes last
    return order


def write_proposal(
    curation: Curation,
    splits: Splits,
    data: Sequence[DataSpec],
    folder: Path,
    order: Sequence[int] | None = None,
) -> None:
    """Write the data set without the doubtful records; ``removed.jsonl`` holds those.

    Args:
        data: What the splits were read from.
        order: Of the training records; by default their own.

    Raises:
        DataError: The folder is there and holds something else or the data themselves, or it
            cannot be written.
    """
    if any(folder.resolve() == Path(here(each.path)).resolve() for each in data):
        raise DataError(
            f"{folder} has the study's own data, which stay as they are. Give another folder with "
            "--out."
        )
    files = {REMOVED_FILE, *(f"{split}.jsonl" for split in _SPLITS)}
    out = {each.at for each in curation.removed}
    kept = [at for at in order or range(len(splits.train)) if at not in out]
    try:
        names = (each.name for each in folder.iterdir()) if folder.exists() else ()
        there = {name for name in names if not name.startswith(".")}
        if there and (REMOVED_FILE not in there or not there <= files):
            raise DataError(
                f"{folder} is there already and is no proposal of `hawsweep curate`. Give another "
                "folder with --out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        # First the file by which it is known again.
        lines = (_removed_line(each, splits.train) for each in curation.removed)
        replace_text(folder / REMOVED_FILE, "".join(lines))
        parts = {"train": splits.train.take(kept), "valid": splits.valid, "test": splits.test}
        for name, records in parts.items():
            path = folder / f"{name}.jsonl"
            if records:
                with replacing(path) as beside:
                    write_records(records, beside)
            else:
                path.unlink(missing_ok=True)  # of an earlier proposal
    except OSError as fault:
        raise DataError(f"{folder} cannot be written: {fault.strerror}.") from fault


def _removed_line(each: Doubtful, records: Records) -> str:
    content = {"where": each.where, "reasons": each.reasons, "record": records[each.at].content}
    return json.dumps(content, ensure_ascii=False) + "\n"
