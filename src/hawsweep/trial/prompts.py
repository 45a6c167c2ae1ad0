"""The prompts of an untuned model: an instruction, and examples before the question."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from hawsweep.data.load import Splits, choose_subset
from hawsweep.data.records import Record, Records
from hawsweep.data.tokens import encode_prompt, is_example, split_system, system_of, with_examples
from hawsweep.errors import DataError
from hawsweep.models.load import LoadedModel
from hawsweep.spec.scoring import QUESTION
from hawsweep.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Prompt:
    """One of the prompts.

    Attributes:
        examples: Training records shown before the question, those with its system message; maybe
            none.
        number: Of its instruction, from 1; 0 for the data's own prompt.
        instruction: Its text; empty for the data's own.
    """

    examples: tuple[Record, ...] = ()
    number: int = 0
    instruction: str = ""

    @property
    def about(self) -> dict[str, int]:
        """What a study keeps of it."""
        numbered = {"instruction": self.number} if self.number else {}
        return {"n_examples": self.n_examples, **numbered}

    @property
    def n_examples(self) -> int:
        """The most that a question is asked with."""
        return max(Counter(map(system_of, self.examples)).values(), default=0)

    def of(self, record: Record) -> Record:
        """A record whose question is asked with this prompt."""
        alike = [each for each in self.examples if system_of(each) == system_of(record)]
        shown = [instructed(each, self.instruction) for each in alike]
        return with_examples(instructed(record, self.instruction), shown)


def instructed(record: Record, instruction: str) -> Record:
    """A record with an instruction: around each user's message, or as the system message."""
    messages = record.messages
    if not instruction or messages is None:
        return record
    if QUESTION in instruction:
        changed = [
            {**each, "content": instruction.replace(QUESTION, each["content"])}
            if each["role"] == "user"
            else each
            for each in messages
        ]
    else:
        changed = [{"role": "system", "content": instruction}, *split_system(record)[1]]
    return replace(record, content={**record.content, "messages": changed})


def choose_prompts(
    spec: SweepSpec, loaded: LoadedModel, splits: Splits, records: Sequence[Record]
) -> list[Prompt]:
    """The different prompts that the sweep asks for, beside the data's own without examples.

    Each has as many examples as keep the longest of ``records`` within ``max_seq_length``; one that
    is longer by itself does not count. Where records differ in their system message, so do their
    examples.

    Raises:
        DataError: The chat template has no place for an instruction.
    """
    asked = spec.scoring.prompt
    if not asked.n_tried:
        return []
    longest = _longest_by_system(spec, loaded, records)
    found: dict[tuple[int, int], Prompt] = {}
    for number, text in enumerate(("", *asked.instructions)):
        _check_instruction(number, text, loaded)
        for n in asked.examples:
            shown = [_examples(splits.train, each, n, spec.seed) for each in longest]
            prompt = Prompt(tuple(chain.from_iterable(shown)), number, text)
            while prompt.examples and any(
                _length(prompt.of(each), loaded) > spec.train.max_seq_length
                for each in longest.values()
            ):
                shown = [each[: prompt.n_examples - 1] for each in shown]
                prompt = replace(prompt, examples=tuple(chain.from_iterable(shown)))
            if prompt.examples or number:
                found.setdefault((number, prompt.n_examples), prompt)
    return list(found.values())


def untried(spec: SweepSpec, prompts: Sequence[Prompt]) -> list[str]:
    """That no example is shown though some are asked for, in a sentence."""
    if not max(spec.scoring.prompt.examples) or any(each.examples for each in prompts):
        return []
    return [
        "the untuned model is not tried with examples in its prompt: none has the questions' "
        "system message and leaves them room within train.max_seq_length"
    ]


def _longest_by_system(
    spec: SweepSpec, loaded: LoadedModel, records: Sequence[Record]
) -> dict[str | None, Record]:
    """The record with the longest prompt within ``max_seq_length``, by system message."""
    found: dict[str | None, tuple[int, Record]] = {}
    for record in records:
        length, system = _length(record, loaded), system_of(record)
        if found.get(system, (0, record))[0] < length <= spec.train.max_seq_length:
            found[system] = length, record
    return {system: record for system, (_, record) in found.items()}


def _examples(train: Records, system: str | None, n: int, seed: int) -> list[Record]:
    """At most ``n`` records to show before a question with this system message."""
    first = choose_subset(train, n, seed)
    if any(system_of(each) != system for each in first):
        alike = [i for i, each in enumerate(train) if system_of(each) == system]
        first = choose_subset(train.take(alike), n, seed)
    return list(filter(is_example, first))


def _length(record: Record, loaded: LoadedModel) -> int:
    return len(encode_prompt(record, loaded.template))


def _check_instruction(number: int, text: str, loaded: LoadedModel) -> None:
    if not text or QUESTION in text or loaded.template.shows("system"):
        return
    raise DataError(
        f"scoring.prompt.instructions[{number - 1}] is a system message, which the model's chat "
        f"template does not show. Write it with {QUESTION}, where the question goes."
    )


def pick(prompts: Sequence[Prompt], chosen: Mapping[str, Any]) -> Prompt:
    """The one of the prompts that a study chose; where a longer question leaves room for fewer
    examples, the nearest.

    Args:
        chosen: ``Prompt.about`` of it; empty for the first.
    """
    number, n_examples = chosen.get("instruction", 0), chosen.get("n_examples", 0)
    if not number and all(each.number for each in prompts):
        return Prompt()  # no example of the data's own prompt leaves room
    return min(prompts, key=lambda each: (each.number != number, abs(each.n_examples - n_examples)))
