"""The lengths of a sweep's examples and prompts in tokens, known or assumed."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.batches import (
    padded_targets,
    padded_width,
    training_order,
    training_steps,
)
from hawsweep.data.load import is_local, load_data
from hawsweep.files import replacing
from hawsweep.machine import backend
from hawsweep.planning.peak import Step
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.text import counted

# Batches that show how much is padded: four pools of ``batches.training_order``.
_TYPICAL_BATCHES = 128


@dataclass(frozen=True)
class Workload:
    """The lengths of a trial's training examples, on which memory and time depend.

    Attributes:
        lengths: Tokens of each, ``[examples]``.
        n_targets: Tokens learned from in each, ``[examples]``.
        how: The origin of these numbers.
        weights: How often each comes in an epoch, ``[examples]``; None: each once.
    """

    lengths: npt.NDArray[np.integer[Any]]
    n_targets: npt.NDArray[np.integer[Any]]
    how: str
    weights: npt.NDArray[np.float32] | None = None

    def largest_step(self, batch_size: int, micro_batch: int) -> Step:
        """The largest part of a batch, or several batches as one, that can occur: the most rows,
        the longest width, the most targets.
        """
        n_batches = max(1, micro_batch // batch_size)
        # An epoch's last batch may be split less evenly than the others, into larger parts.
        rows = min(batch_size, micro_batch, len(self.lengths))
        # An example may come again in a later batch.
        most = n_batches * int(np.sort(self.n_targets)[-rows:].sum())
        rows *= n_batches
        width = padded_width(int(self.lengths.max()) - 1)
        return Step(rows, width, _most_padded(most, rows * width))

    def steps(
        self, train: TrainSpec, order: Iterator[tuple[int, ...]], micro_batch: int
    ) -> list[Step]:
        """A trial's parts, padded; each batch is given as indices of these examples."""
        steps = training_steps(train, order, micro_batch)
        return [self._step(part) for _, parts in steps for part in parts]

    def typical_steps(self, train: TrainSpec, micro_batch: int) -> list[Step]:
        """The parts of a trial's first batches, in the order of examples without weights."""
        order = training_order(self.lengths, train.batch_size, train.seed)
        return self.steps(train, islice(order, _TYPICAL_BATCHES), micro_batch)

    def _step(self, part: Sequence[int]) -> Step:
        rows, width = len(part), padded_width(int(self.lengths[list(part)].max()) - 1)
        n_targets = int(self.n_targets[list(part)].sum())
        return Step(rows, width, padded_targets(n_targets, rows * width))

    def cut(self, max_seq_length: int) -> "Workload":
        """The same with examples of at most so many tokens."""
        if int(self.lengths.max()) <= max_seq_length:
            return self
        lengths = np.minimum(self.lengths, max_seq_length)
        # Prompts come first: what is cut away is learned from.
        n_targets = np.maximum(1, self.n_targets - (self.lengths - lengths))
        return replace(self, lengths=lengths, n_targets=n_targets)

    @property
    def mean_tokens(self) -> float:
        """Of an example."""
        return float(self.lengths.mean())

    @property
    def mean_trained(self) -> float:
        """Tokens of an example, over an epoch."""
        return float(np.average(self.lengths, weights=self.weights))

    @property
    def mean_weight(self) -> float:
        """How often an example comes in an epoch."""
        return 1.0 if self.weights is None else float(self.weights.mean())


def assumed_workload(n_examples: int, longest: int, how: str) -> Workload:
    """Examples of assumed lengths, learned from whole: enough of the longest kind for any step, the
    others as short as those of real pairs mostly are.
    """
    n_shorter = max(0, n_examples - _ASSUMED_LONGEST)
    share = (np.arange(n_shorter) + 1) / max(1, n_shorter)
    shorter = np.ceil(longest * share**_ASSUMED_SKEW).astype(np.int64)
    n_longest = max(1, n_examples - n_shorter)
    lengths = np.concatenate([np.maximum(shorter, 2), np.full(n_longest, longest)])
    np.random.default_rng(0).shuffle(lengths)  # the first of them are like all
    return Workload(lengths, lengths - 1, how)


def _most_padded(n_targets: int, n_tokens: int) -> int:
    """The most padded targets for up to ``n_targets`` targets in up to ``n_tokens`` tokens: fewer
    tokens may be padded to more targets.
    """
    sizes = {min(n_tokens, 16 * padded_width(part)) for part in range(8, n_tokens // 16 + 16, 8)}
    return max(padded_targets(min(n_targets, size), size) for size in sizes)


# An estimate of a text's tokens: characters a token, and the chat template's own tokens.
_CHARACTERS_A_TOKEN = 2.8
_TEMPLATE_TOKENS = 20
# The examples assumed for missing data: enough for any batch.
_ASSUMED_EXAMPLES = 1000
_ASSUMED_HELD_OUT = 100
# Of missing data: so many examples of max_seq_length, which decide memory; the others have 1 /
# (1 + skew) of it in the mean, 0.42. The pairs of the Fornander corpus have 0.39 of 1,024 tokens.
_ASSUMED_LONGEST, _ASSUMED_SKEW = 64, 1.4


def workload(spec: SweepSpec, data_pairs: int | None = None) -> Workload:
    """The lengths of a sweep's training examples: known from an earlier run, else estimated."""
    longest = spec.train.max_seq_length
    if data_pairs is not None:
        return assumed_workload(
            data_pairs, longest, f"assumed: {counted(data_pairs, 'example')} up to max_seq_length"
        )
    if not _data_is_here(spec):
        how = "assumed up to max_seq_length, as the data is not here"
        return assumed_workload(_ASSUMED_EXAMPLES, longest, how)
    splits = load_data(spec.data)
    known = _read_lengths(lengths_file(spec, splits.fingerprint()["train"]))
    weights = splits.weights
    if known is not None:  # records that cannot be trained on are not among them
        is_all = weights is not None and len(weights) == len(known.lengths)
        return replace(known, weights=weights if is_all else None)
    characters = [
        [len(str(message.get("content", ""))) for message in record.messages or ()]
        or [len(str(record.content.get("text", "")))]
        for record in splits.train
    ]
    lengths = np.minimum(_tokens(map(sum, characters)) + _TEMPLATE_TOKENS, longest)
    targets = lengths - 1
    if spec.train.mask_prompt:
        targets = np.minimum(_tokens(each[-1] for each in characters) + 2, targets)
    how = "estimated from the texts, not tokenized yet"
    return Workload(lengths, targets, how, weights)


def n_held_out(spec: SweepSpec, data_pairs: int | None = None) -> tuple[int, int]:
    """The numbers of validation and test records; without the data, the most a sweep may use."""
    if data_pairs is not None or not _data_is_here(spec):
        return max(_ASSUMED_HELD_OUT, spec.scoring.max_examples), 2 * spec.scoring.max_examples
    splits = load_data(spec.data)
    return len(splits.valid), len(splits.test)


def _data_is_here(spec: SweepSpec) -> bool:
    return all(is_local(each.path) for each in spec.data)


def _tokens(characters: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.ceil(np.array(list(characters)) / _CHARACTERS_A_TOKEN).astype(np.int64)


def save_lengths(spec: SweepSpec, fingerprint: str, work: Workload) -> None:
    """Keep the counted lengths for later plans; a full disk is ignored."""
    path = lengths_file(spec, fingerprint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            np.savez(beside, lengths=work.lengths, n_targets=work.n_targets)
    except OSError:
        return


def lengths_file(spec: SweepSpec, fingerprint: str) -> Path:
    """The file with the lengths of a training split."""
    train = spec.train
    key = (spec.model, fingerprint, train.max_seq_length, train.mask_prompt)
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return backend.cache_dir() / "lengths" / f"{digest}.npz"


def _read_lengths(path: Path) -> Workload | None:
    try:
        with np.load(path) as content:
            return Workload(content["lengths"], content["n_targets"], "as tokenized before")
    except (OSError, ValueError, KeyError, EOFError):
        return None  # missing or half-written
