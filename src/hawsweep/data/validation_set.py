"""The validation records for the loss, and the comparison of losses between models.

Models cut text into different tokens, so nats per token cannot be compared between models. Nats per
byte of the learned text can: the text is the same for all models.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.batches import validation_size
from hawsweep.data.load import Splits, choose_indices
from hawsweep.data.records import Record
from hawsweep.data.tokens import Example, encode
from hawsweep.errors import DataError
from hawsweep.models.chat_template import ChatTemplate
from hawsweep.spec.sweep import SweepSpec


def choose_size(
    spec: SweepSpec,
    train_lengths: npt.NDArray[np.integer[Any]],
    valid_lengths: npt.NDArray[np.integer[Any]],
) -> int:
    """How many validation examples the loss is measured on: ``validation.max_examples``."""
    asked = spec.validation.max_examples
    if asked != "auto":
        return asked
    smallest, _ = spec.ends_of("batch_size")
    fewest, _ = spec.ends_of("iters")
    between = fewest / math.ceil(fewest / spec.train.steps_per_eval)  # the last is at the end
    return validation_size(train_lengths, valid_lengths, smallest, between)


def shared_records(
    spec: SweepSpec, splits: Splits, templates: Mapping[str, ChatTemplate]
) -> list[int]:
    """The validation records for the loss of several models: a seeded choice of records from which
    each model has something to learn.

    Args:
        templates: By model.

    Raises:
        DataError: There are none, or a model's chat template refuses one.
    """
    train = spec.train
    usable = set(range(len(splits.valid)))
    for model, template in templates.items():
        try:
            encoded = encode(splits.valid, template, train)
        except DataError as fault:
            raise DataError(f"{model}: {fault}") from fault
        usable &= set(encoded.record_indices.tolist())
    if not usable:
        raise DataError(
            "No validation record has anything to learn from within train.max_seq_length="
            f"{train.max_seq_length} for every model of search.model. Raise it."
        )
    records = sorted(usable)
    lengths = [
        np.array([n_bytes(record, mask_prompt=False) for record in each])
        for each in (splits.train, splits.valid)
    ]
    size = choose_size(spec, lengths[0], lengths[1][records])
    return [records[i] for i in choose_indices(len(records), size, spec.seed)]


def targets_per_byte(
    spec: SweepSpec, records: Sequence[Record], examples: Sequence[Example], tokenizer: Any
) -> float:
    """The tokens that count in the loss, for each UTF-8 byte of their text.

    A loss in nats per token times this gives nats per byte.

    Args:
        records: The records of ``examples``, in the same order.
    """
    learned = 0
    for record, example in zip(records, examples, strict=True):
        whole = n_bytes(record, mask_prompt=spec.train.mask_prompt)
        if len(example.tokens) == spec.train.max_seq_length:  # perhaps cut
            tokens = example.tokens[example.offset :].tolist()
            whole = min(whole, len(tokenizer.decode(tokens, skip_special_tokens=True).encode()))
        learned += whole
    return sum(example.n_targets for example in examples) / max(1, learned)


def n_bytes(record: Record, *, mask_prompt: bool) -> int:
    """UTF-8 bytes of the learned part of a record, without the chat template's own text."""
    messages = record.messages
    if messages is None:
        return len(str(record.content.get("text", "")).encode())
    learned = messages[-1:] if mask_prompt else messages
    return sum(len(str(each.get("content") or "").encode()) for each in learned)
