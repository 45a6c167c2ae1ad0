"""The prompts of an untuned model: an instruction, and examples before the question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hawsweep.data.load import Splits, choose_subset
from hawsweep.data.records import Record
from hawsweep.data.tokens import encode_prompt, is_example, with_examples
from hawsweep.errors import DataError
from hawsweep.models.load import LoadedModel
from hawsweep.spec.scoring import QUESTION
from hawsweep.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Prompt:
    """One of the prompts.

    Attributes:
        examples: Training records shown before the question; maybe none.
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
        return {"n_examples": len(self.examples), **numbered}

    def of(self, record: Record) -> Record:
        """A record whose question is asked with this prompt."""
        shown = [instructed(each, self.instruction) for each in self.examples]
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
        own = messages[messages[0]["role"] == "system" :]
        changed = [{"role": "system", "content": instruction}, *own]
    return replace(record, content={**record.content, "messages": changed})


def choose_prompts(
    spec: SweepSpec, loaded: LoadedModel, splits: Splits, records: Sequence[Record]
) -> list[Prompt]:
    """The different prompts that the sweep asks for, beside the data's own without examples; with
    as many examples as keep the longest of ``records`` within ``max_seq_length``.

    Raises:
        DataError: The chat template has no place for an instruction.
    """
    asked = spec.scoring.prompt
    if not asked.n_tried:
        return []
    longest = max(records, key=lambda each: len(encode_prompt(each, loaded.template)))
    found: dict[tuple[int, int], Prompt] = {}
    for number, text in enumerate(("", *asked.instructions)):
        _check_instruction(longest, number, text, loaded)
        for n in asked.examples:
            shown = tuple(filter(is_example, choose_subset(splits.train, n, spec.seed)))
            prompt = Prompt(shown, number, text)
            while prompt.examples and _is_longer(prompt.of(longest), spec, loaded):
                prompt = replace(prompt, examples=prompt.examples[:-1])
            if prompt.examples or number:
                found.setdefault((number, len(prompt.examples)), prompt)
    return list(found.values())


def _is_longer(record: Record, spec: SweepSpec, loaded: LoadedModel) -> bool:
    return len(encode_prompt(record, loaded.template)) > spec.train.max_seq_length


def _check_instruction(record: Record, number: int, text: str, loaded: LoadedModel) -> None:
    if not text or QUESTION in text or loaded.template.shows_system:
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
    return min(
        prompts, key=lambda each: (each.number != number, abs(len(each.examples) - n_examples))
    )
