"""Records as the model sees them: what is learned, what is asked, what is cut and dropped."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep.data.augment import augment
from hawsweep.data.load import Splits, load_data
from hawsweep.data.records import Record
from hawsweep.data.tokens import Doubts, encode_prompt, encode_record
from hawsweep.errors import DataError, ModelError
from hawsweep.models import resolve
from hawsweep.models.chat_template import ChatTemplate, Conversation
from hawsweep.models.hub import download_command
from hawsweep.models.load import load_template
from hawsweep.prepare.inspect_data import SPLITS
from hawsweep.spec.read import load_sweep
from hawsweep.spec.sweep import SweepSpec
from hawsweep.text import SayProgress


@dataclass(frozen=True)
class RecordView:
    """A record as the model sees it.

    Attributes:
        where: File and line.
        tokens: Token ids, ``[tokens]``, cut at ``max_seq_length``.
        learned: The tokens that count in the loss, as ``[start, end)``; none of a dropped record.
        learned_text: Their text, without control tokens and reasoning.
        learned_markup: Their text as the model sees it.
        prompt_tokens: The prompt that scoring sends; None of plain text.
        prompt_is_prefix: Whether the record begins with that prompt; None of plain text.
        ends_turn: Whether the end of an answer is learned.
        n_cut: Tokens beyond ``max_seq_length``.
        dropped: Why it is left out of training; None where it is not.
    """

    where: str
    split: str
    tokens: list[int]
    learned: list[tuple[int, int]]
    learned_text: str = ""
    learned_markup: str = ""
    prompt_tokens: list[int] | None = None
    prompt_text: str | None = None
    prompt_is_prefix: bool | None = None
    ends_turn: bool = False
    n_cut: int = 0
    dropped: str | None = None


@dataclass(frozen=True)
class SplitCount:
    """How many records a split has, has to learn from, and has that are cut."""

    n_records: int
    n_used: int
    n_cut: int


@dataclass(frozen=True)
class Preview:
    """A data set as a model sees it.

    Attributes:
        end_of_turn: The tokens that end an answer, as ids.
        n_records: All records.
        n_used: Those with something to learn from.
        columns: The columns taken of the first table among the data, by their use; None where
            there is no table.
        repairs: What the chat template gets wrong and how it is mended, in sentences.
        warnings: What is not learned as it stands in the records, in sentences.
    """

    model: str
    end_of_turn: list[int]
    end_of_turn_text: str
    n_records: int
    n_used: int
    columns: Mapping[str, str] | None
    splits: Mapping[str, SplitCount]
    repairs: Sequence[str]
    warnings: Sequence[str]
    records: Sequence[RecordView]


def preview(
    spec: SweepSpec,
    *,
    splits: Sequence[str] = SPLITS,
    n_each: int = 2,
    record: str | None = None,
    progress: SayProgress = lambda _: None,
) -> Preview:
    """Show the first records of each split as the model of a sweep sees them. No weights are read.

    Args:
        n_each: Records to show of each split.
        record: Show this record instead, by file and line as in ``train.jsonl:7``.

    Raises:
        DataError: The data cannot be read or used, or has no such record.
        ModelError: The model is not here, or its chat template keeps no contract.
    """
    path = _model_path(spec.model, progress)
    progress("reading the tokenizer")
    template = load_template(path, trust_remote_code=spec.trust_remote_code)
    found = load_data(spec.data, progress)
    counts: dict[str, SplitCount] = {}
    shown: list[RecordView] = []
    warnings: list[str] = []
    for split, records in _parts(spec, found, splits):
        progress(f"reading {split}")
        doubts = Doubts(template, mask_prompt=spec.train.mask_prompt)
        n_records = n_used = n_cut = 0
        for entry in records:
            tokens = encode_record(entry, template, mask_prompt=spec.train.mask_prompt)
            doubts.look_at(entry, tokens)
            seen = _see(entry, tokens, split, spec)
            n_records, n_used = n_records + 1, n_used + (seen.dropped is None)
            n_cut += seen.n_cut > 0
            if n_records <= n_each if record is None else _is_at(entry.where, record):
                shown.append(_with_texts(seen, tokens, entry, template))
        if n_records or len(splits) == 1:
            counts[split] = SplitCount(n_records, n_used, n_cut)
        warnings += (f"{split}: {each}" for each in doubts.warnings())
    if record is not None and not shown:
        raise DataError(
            f"{spec.data[0].path} has no record {record!r} in {', '.join(splits)}. Name file and "
            "line, such as train.jsonl:7."
        )
    return Preview(
        spec.model,
        [template.end],
        template.ends[0],
        sum(each.n_records for name, each in counts.items() if name in splits),
        sum(each.n_used for name, each in counts.items() if name in splits),
        _columns(found),
        counts,
        template.repairs,
        warnings,
        shown,
    )


def _parts(
    spec: SweepSpec, found: Splits, splits: Sequence[str]
) -> Iterator[tuple[str, Sequence[Record]]]:
    """Each split with its records; after the training records their variants, by kind."""
    for split in splits:
        yield split, getattr(found, split)
        if split == "train":
            augmented = augment(spec, found.train)
            for kind in augmented.counts():
                at = np.flatnonzero(augmented.kinds == kind)
                yield f"train, {kind}", augmented.records.take(at.tolist())


def _columns(splits: Splits) -> dict[str, str] | None:
    for taken in splits.columns.values():
        used = {"source": taken.source, "target": taken.target, "group": taken.group}
        return {use: name for use, name in used.items() if name is not None}
    return None


def _see(record: Record, found: Conversation, split: str, spec: SweepSpec) -> RecordView:
    """What is learned of a record, without its texts."""
    width = spec.train.max_seq_length
    start = max(1, found.start if spec.train.mask_prompt else 0)
    end = min(len(found.tokens), width)
    if start < end:
        learned, dropped = [(start, end)], None
    elif start >= len(found.tokens):
        learned, dropped = [], "nothing follows its prompt"
    else:
        learned, dropped = [], f"its prompt has {start} tokens and max_seq_length is {width}"
    return RecordView(
        record.where,
        split,
        found.tokens[:width],
        learned,
        n_cut=max(0, len(found.tokens) - width),
        dropped=dropped,
    )


def _with_texts(
    seen: RecordView, found: Conversation, record: Record, template: ChatTemplate
) -> RecordView:
    learned = [token for start, end in seen.learned for token in seen.tokens[start:end]]
    text = template.answer(learned)
    prompt = None if record.messages is None else encode_prompt(record, template)
    return replace(
        seen,
        learned_text=text or "",
        learned_markup=template.tokenizer.decode(learned),
        ends_turn=template.end in learned,
        prompt_tokens=prompt,
        prompt_text=None if prompt is None else template.tokenizer.decode(prompt),
        prompt_is_prefix=None if prompt is None else found.tokens[: len(prompt)] == prompt,
    )


def _is_at(where: str, asked: str) -> bool:
    """Whether a record's place is the one asked for, which may leave out folders."""
    return where.endswith(f"/{asked}") or os.path.abspath(where) == os.path.abspath(asked)


def _model_path(model: str, progress: SayProgress) -> Path:
    if model in resolve.BUNDLED:
        return resolve.resolve_model(model, progress)
    path = resolve.find_model(model)
    if path is None:
        raise ModelError(
            f"{model} is not here, and a preview downloads nothing. Name a folder with --model, or "
            f"fetch it{download_command(model)}."
        )
    return path


def sweep_of(overrides: Mapping[str, Any]) -> SweepSpec:
    """A sweep of data and a model alone: plain text is learned whole, else the answers are.

    Raises:
        DataError: The data cannot be read.
        SpecError: A key or its value is wrong.
    """
    least = {"search": {"learning_rate": {"choices": [1e-4]}}, "train": {"mask_prompt": False}}
    spec = load_sweep(least, overrides)
    if "train.mask_prompt" in overrides or load_data(spec.data).train[0].messages is None:
        return spec
    return load_sweep(least, {**overrides, "train.mask_prompt": True})
