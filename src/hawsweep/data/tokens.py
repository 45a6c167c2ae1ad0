"""Records become tokens by the model's chat template; the tokens lie on disk."""

import mmap
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from hawsweep.data.records import Record, scratch_file
from hawsweep.errors import DataError


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
    ) -> None:
        self._tokens = tokens
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.lengths, self.n_targets = lengths, n_targets

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        length = int(self.lengths[index])
        end = int(self._ends[index])
        return Example(self._tokens[end - length : end], length - int(self.n_targets[index]))


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
    """

    examples: Examples
    record_indices: npt.NDArray[np.int32]
    n_truncated: int
    n_dropped: int
    n_empty: int
    weights: npt.NDArray[np.float32] | None = None


def encode(
    records: Iterable[Record],
    tokenizer: Any,
    *,
    max_seq_length: int,
    mask_prompt: bool,
    weights: npt.NDArray[np.float32] | None = None,
) -> Encoded:
    """Turn records into tokens as mlx-lm does, by the model's chat template.

    Records are read one at a time. Their tokens go to a temporary file, removed with the examples.

    Args:
        weights: How often each record comes in an epoch, ``[records]``; None: each once.

    Raises:
        DataError: Nothing is left to learn from, or the chat template refuses a record.
    """
    kept, lengths, n_targets = array("i"), array("i"), array("i")
    n_truncated = n_dropped = n_empty = longest = 0
    first_empty = ""
    with scratch_file() as file:
        for index, record in enumerate(records):
            tokens, offset = _tokenize(record, tokenizer, mask_prompt)
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
    )


def encode_prompt(record: Record, tokenizer: Any) -> list[int]:
    """The tokens after which the model answers."""
    messages = record.messages
    assert messages is not None
    return list(
        tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    )


def with_examples(record: Record, examples: Sequence[Record]) -> Record:
    """The record with other records' questions and answers before its own, as a few-shot prompt."""
    messages = record.messages
    assert messages is not None
    first = [each for each in messages[:1] if each.get("role") == "system"]
    shown = [each for example in examples for each in (example.messages or ())[-2:]]
    return Record(
        {**record.content, "messages": [*first, *shown, *messages[len(first) :]]}, record.where
    )


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that the chat template puts after an answer; None if it is an ordinary token.

    In some models the end-of-sequence token never follows an answer.
    """
    question = {"role": "user", "content": "a"}
    before = encode_prompt(Record({"messages": [question, {}]}), tokenizer)
    whole = tokenizer.apply_chat_template(
        [question, {"role": "assistant", "content": "b"}], return_dict=False
    )
    special = {
        *tokenizer.all_special_ids,
        *(number for number, token in tokenizer.added_tokens_decoder.items() if token.special),
    }
    after = [token for token in whole[len(before) :] if token in special]
    return after[0] if after else None


def _tokenize(record: Record, tokenizer: Any, mask_prompt: bool) -> tuple[list[int], int]:
    messages = record.messages
    if messages is None:
        if mask_prompt:
            raise DataError(
                f"{record.where} is plain text, which has no prompt to mask. Set "
                "train.mask_prompt: false."
            )
        tokens = list(tokenizer.encode(record.content["text"]))
        if tokens[-1:] != [tokenizer.eos_token_id]:
            tokens.append(tokenizer.eos_token_id)
        return tokens, 0
    tools = record.content.get("tools")
    try:
        tokens = list(tokenizer.apply_chat_template(messages, tools=tools, return_dict=False))
        if not mask_prompt:
            return tokens, 0
        prompt = tokenizer.apply_chat_template(
            messages[:-1],
            tools=tools,
            add_generation_prompt=messages[-1].get("role") == "assistant",
            return_dict=False,
        )
    except Exception as fault:  # a chat template is the model's code and may raise anything
        raise DataError(
            f"{record.where}: the model's chat template refuses the record: {fault}"
        ) from fault
    return tokens, len(prompt)


def _nothing_to_learn(
    max_seq_length: int, longest: int, n_dropped: int, n_empty: int, first_empty: str
) -> DataError:
    if n_empty and n_empty == n_dropped:
        return DataError(
            f"No record has anything to learn from: each of {n_empty} is empty after its prompt, "
            f"the first is {first_empty}. Add the answers."
        )
    also = f" {n_empty} are empty even uncut, the first is {first_empty}." if n_empty else ""
    return DataError(
        f"No record has anything to learn from within max_seq_length={max_seq_length} tokens: "
        f"the longest of {n_dropped} has {longest}. Raise train.max_seq_length or shorten "
        f"the records.{also}"
    )
