"""Records become tokens by the contract of the model's chat template; the tokens lie on disk."""

import mmap
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from hawsweep.data.json_line import SYSTEM_ROLES
from hawsweep.data.records import Record, scratch_file
from hawsweep.errors import DataError
from hawsweep.models.chat_template import ChatTemplate, Conversation
from hawsweep.spec.train import TrainSpec


@dataclass(frozen=True)
class Example:
    """A record's tokens.

    Attributes:
        tokens: Token ids, ``[tokens]``.
        offset: The loss counts tokens from here on. At least 1: nothing predicts the first token.
    """

    tokens: npt.NDArray[np.int32]
    offset: int

    @property
    def n_targets(self) -> int:
        """How many tokens count in the loss."""
        return len(self.tokens) - self.offset


class Examples(Sequence[Example]):
    """Examples with their tokens on disk, one after another. Memory holds 16 bytes an example.

    Attributes:
        lengths: Tokens of each, ``[examples]``.
        n_targets: Tokens of each that count in the loss, ``[examples]``.
    """

    def __init__(
        self,
        tokens: npt.NDArray[np.int32],
        lengths: npt.NDArray[np.int32],
        n_targets: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._tokens = tokens
        self._starts = np.cumsum(lengths, dtype=np.int64) - lengths if starts is None else starts
        self.lengths, self.n_targets = lengths, n_targets

    def cut(self, max_seq_length: int, kept: npt.NDArray[np.bool_]) -> "Examples":
        """Those that are ``kept``, each with at most so many tokens."""
        cut = np.maximum(self.lengths - max_seq_length, 0)
        lengths, n_targets = self.lengths - cut, self.n_targets - cut
        return Examples(self._tokens, lengths[kept], n_targets[kept], self._starts[kept])

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        length, start = int(self.lengths[index]), int(self._starts[index])
        return Example(self._tokens[start : start + length], length - int(self.n_targets[index]))


@dataclass(frozen=True)
class Encoded:
    """A split as tokens.

    Attributes:
        examples: Examples with at least one token to learn from.
        record_indices: Which record each example is, ``[examples]``.
        n_truncated: Records cut at ``max_seq_length``, whether then dropped or not.
        n_dropped: Records with no token to learn from, before or after the cut.
        n_empty: Dropped records that had no such token before the cut; not in ``n_truncated``.
        weights: How often each example comes in an epoch, ``[examples]``; None: each once.
        warnings: What is learned otherwise than it stands in the records, in sentences.
    """

    examples: Examples
    record_indices: npt.NDArray[np.int32]
    n_truncated: int
    n_dropped: int
    n_empty: int
    weights: npt.NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()

    def cut(self, max_seq_length: int) -> "Encoded":
        """The split as it is at a smaller ``max_seq_length``.

        Raises:
            DataError: Nothing is left to learn from.
        """
        lengths, n_targets = self.examples.lengths, self.examples.n_targets
        kept = n_targets > np.maximum(lengths - max_seq_length, 0)
        if not kept.any():
            longest = int(lengths.max())
            raise _nothing_to_learn(max_seq_length, longest, len(lengths), section="search")
        return replace(
            self,
            examples=self.examples.cut(max_seq_length, kept),
            record_indices=self.record_indices[kept],
            weights=None if self.weights is None else self.weights[kept],
        )


def encode(
    records: Iterable[Record],
    template: ChatTemplate,
    train: TrainSpec,
    weights: npt.NDArray[np.float32] | None = None,
) -> Encoded:
    """Turn records into tokens by the model's chat template.

    Records are read one at a time. Their tokens go to a temporary file, removed with the examples.

    Args:
        train: Its ``max_seq_length`` and ``mask_prompt`` count.
        weights: How often each record comes in an epoch, ``[records]``; None: each once.

    Raises:
        DataError: Nothing is left to learn from, or a record does not keep the template's contract.
    """
    max_seq_length, mask_prompt = train.max_seq_length, train.mask_prompt
    kept, lengths, n_targets = array("i"), array("i"), array("i")
    n_truncated = n_dropped = n_empty = longest = 0
    first_empty = ""
    doubts = Doubts(template, mask_prompt=mask_prompt)
    with scratch_file() as file:
        for index, record in enumerate(records):
            found = encode_record(record, template, mask_prompt=mask_prompt)
            doubts.look_at(record, found)
            tokens, offset = found.tokens, found.start if mask_prompt else 0
            longest = max(longest, len(tokens))
            example = Example(np.array(tokens[:max_seq_length], np.int32), max(offset, 1))
            is_empty = len(tokens) <= example.offset
            if is_empty and not n_empty:
                first_empty = record.where
            n_empty += is_empty
            n_truncated += len(tokens) > max_seq_length and not is_empty
            if example.n_targets < 1:
                n_dropped += 1
                continue
            file.write(example.tokens.tobytes())
            kept.append(index)
            lengths.append(len(example.tokens))
            n_targets.append(example.n_targets)
    with file:
        if not kept:
            raise _nothing_to_learn(max_seq_length, longest, n_dropped, n_empty, first_empty)
        # The mapping outlives the file.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    record_indices = np.array(kept)
    return Encoded(
        Examples(np.frombuffer(mapped, np.int32), np.array(lengths), np.array(n_targets)),
        record_indices,
        n_truncated,
        n_dropped,
        n_empty,
        None if weights is None else weights[record_indices],
        doubts.warnings(),
    )


def encode_record(record: Record, template: ChatTemplate, *, mask_prompt: bool) -> Conversation:
    """A record's tokens, uncut, and where its answer begins.

    Raises:
        DataError: It does not keep the template's contract, or it is plain text with a prompt to
            mask. The message names file and line.
    """
    messages = record.messages
    if messages is None and mask_prompt:
        raise DataError(
            f"{record.where} is plain text, which has no prompt to mask. Set "
            "train.mask_prompt: false."
        )
    try:
        if messages is None:
            return template.encode_text(record.content["text"])
        return template.encode(messages, record.tools)
    except DataError as fault:
        raise DataError(f"{record.where}: {fault}") from fault


def encode_prompt(record: Record, template: ChatTemplate) -> list[int]:
    """The tokens after which the model answers; see ``encode_record``."""
    found = encode_record(record, template, mask_prompt=True)
    return found.tokens[: found.start]


def with_examples(record: Record, examples: Sequence[Record]) -> Record:
    """The record with other records' conversations before its own, as a few-shot prompt.

    Only those with the record's own system message are shown.
    """
    system, own = split_system(record)
    shown = [
        message
        for example in examples
        if system_of(example) == system_of(record)
        for message in split_system(example)[1]
    ]
    return replace(record, content={**record.content, "messages": [*system, *shown, *own]})


def is_example(record: Record) -> bool:
    """Whether a record can be shown in a few-shot prompt: questions and answers in turn, and no
    tools.
    """
    if record.reference is None or record.tools:
        return False
    roles = [message["role"] for message in split_system(record)[1]]
    return roles == ["user", "assistant"] * (len(roles) // 2)


def split_system(record: Record) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system or developer message, if there is one, and the other messages."""
    messages = record.messages or []
    n_first = sum(message["role"] in SYSTEM_ROLES for message in messages[:1])
    return messages[:n_first], messages[n_first:]


def system_of(record: Record) -> str | None:
    """The text of its system or developer message; None if there is none."""
    return next((str(message["content"]) for message in split_system(record)[0]), None)


def common_system(records: Sequence[Record]) -> str | None:
    """The ``system_of`` all records; None if there is none, or several."""
    found: set[str | None] = set()
    for record in records:
        found.add(system_of(record))
        if len(found) > 1:
            return None
    return found.pop() if found else None


class Doubts:
    """What is not learned as it stands in the records: how often, and the first place."""

    def __init__(self, template: ChatTemplate, *, mask_prompt: bool) -> None:
        self._template, self._mask_prompt = template, mask_prompt
        self._n_records = 0
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def look_at(self, record: Record, found: Conversation) -> None:
        """Compare a record with its tokens."""
        self._n_records += 1
        if found.is_begun_twice:
            self._add("a second begin-of-text token is dropped", record)
        if record.messages is None:
            return
        texts = [str(message["content"]) for message in record.messages]
        marker = next(filter(None, map(self._template.marker_in, texts)), None)
        if marker is not None:
            self._add("a control token that the text spells becomes that token", record, marker)
        elif record.reference is not None:
            answer = self._template.answer(found.tokens[found.start :])
            if answer is None or _words(answer) != _words(record.reference):
                told = f"{record.reference[:60]!r} becomes {(answer or '')[:60]!r}"
                self._add("the template or the tokenizer changes the answer", record, told)
        elif self._mask_prompt:
            self._add("no answer is at the end, so nothing is learned", record)
        if record.tools and self._hides_tools(record, found):
            self._add("the chat template does not show the tools", record)
        for role in dict.fromkeys(str(message["role"]) for message in record.messages):
            if not self._template.shows(role):
                self._add(f"the chat template does not show the {role} message", record)

    def _hides_tools(self, record: Record, found: Conversation) -> bool:
        try:
            return self._template.encode(record.messages or ()).tokens == found.tokens
        except DataError:  # it needs them
            return False

    def _add(self, kind: str, record: Record, told: str = "") -> None:
        self._counts[kind] += 1
        self._first.setdefault(kind, f"{record.where}{told and f', {told}'}")

    def warnings(self) -> tuple[str, ...]:
        """What was found, in sentences."""
        return tuple(
            f"{kind}: {n} of {self._n_records} records, the first is {self._first[kind]}"
            for kind, n in self._counts.items()
        )


def _words(text: str) -> list[str]:
    return unicodedata.normalize("NFC", text).split()


def _nothing_to_learn(
    max_seq_length: int,
    longest: int,
    n_dropped: int,
    n_empty: int = 0,
    first_empty: str = "",
    section: str = "train",
) -> DataError:
    if n_empty and n_empty == n_dropped:
        return DataError(
            f"No record has anything to learn from: each of {n_empty} is empty after its prompt, "
            f"the first is {first_empty}. Add the answers."
        )
    also = f" {n_empty} are empty even uncut, the first is {first_empty}." if n_empty else ""
    return DataError(
        f"No record has anything to learn from within max_seq_length={max_seq_length} tokens: "
        f"the longest of {n_dropped} has {longest}. Raise {section}.max_seq_length or shorten "
        f"the records.{also}"
    )
