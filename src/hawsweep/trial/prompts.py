"""The prompts of an untuned model: an instruction, and examples before the question."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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

# Whether a question leaves room for an answer.
HasRoom = Callable[[Record], bool]


@dataclass(frozen=True)
class Prompt:
    """One of the prompts.

    Attributes:
        examples: Training records shown before the question, of each system message as many; maybe
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
        return max(Counter(map(self.system_of, self.examples)).values(), default=0)

    def system_of(self, record: Record) -> str | None:
        """The system message that a record is asked with, where it is the data's."""
        return None if _is_system(self.instruction) else system_of(record)

    def shown(self, record: Record, has_room: HasRoom) -> list[Record]:
        """The examples before a question: those with its system message, as many as leave room."""
        system = self.system_of(record)
        alike = [each for each in self.examples if self.system_of(each) == system]
        while alike and not has_room(self._asked(record, alike)):
            alike.pop()
        return alike

    def of(self, record: Record, has_room: HasRoom) -> Record:
        """A record whose question is asked with this prompt."""
        return self._asked(record, self.shown(record, has_room))

    def _asked(self, record: Record, examples: Sequence[Record]) -> Record:
        shown = [instructed(each, self.instruction) for each in examples]
        return with_examples(instructed(record, self.instruction), shown)


def room_in(spec: SweepSpec, loaded: LoadedModel) -> HasRoom:
    """Whether a question is within ``max_seq_length``."""
    longest = spec.train.max_seq_length
    return lambda record: len(encode_prompt(record, loaded.template)) <= longest


def _is_system(instruction: str) -> bool:
    return bool(instruction) and QUESTION not in instruction


def instructed(record: Record, instruction: str) -> Record:
    """A record with an instruction: around each user's message, or as the system message."""
    messages = record.messages
    if not instruction or messages is None:
        return record
    if not _is_system(instruction):
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
    """The different prompts that the sweep asks for, beside the data's own without examples; with
    no more examples than one of ``records`` has room for.

    Raises:
        DataError: The chat template has no place for an instruction.
    """
    asked = spec.scoring.prompt
    if not asked.n_tried:
        return []
    has_room, train = room_in(spec, loaded), splits.train
    train = train.take([at for at, each in enumerate(train) if is_example(each)])
    by_system = _by_system(train, records)
    found: dict[tuple[int, int], Prompt] = {}
    for number, text in enumerate(("", *asked.instructions)):
        _check_instruction(number, text, loaded)
        for n in asked.examples:
            pools = [train] if _is_system(text) else by_system
            shown = [tuple(choose_subset(each, n, spec.seed)) for each in pools]
            prompt = Prompt(tuple(chain(*shown)), number, text)
            most = max(len(prompt.shown(each, has_room)) for each in records)
            prompt = replace(prompt, examples=tuple(chain(*(each[:most] for each in shown))))
            if most or number:
                found.setdefault((number, most), prompt)
    return list(found.values())


def untried(
    spec: SweepSpec, loaded: LoadedModel, prompts: Sequence[Prompt], records: Sequence[Record]
) -> list[str]:
    """How many questions are asked without examples though some are asked for, in a sentence."""
    if not max(spec.scoring.prompt.examples):
        return []
    most = max(prompts, key=lambda each: each.n_examples, default=Prompt())
    has_room = room_in(spec, loaded)
    n_without = sum(not most.shown(each, has_room) for each in records)
    if not n_without:
        return []
    return [
        f"{n_without} of {len(records)} questions are asked without examples in the untuned "
        "model's prompt: no training record drawn for it has their system message and leaves them "
        "room within train.max_seq_length"
    ]


def _by_system(train: Records, records: Sequence[Record]) -> list[Records]:
    """The training records with each of the records' system messages."""
    places: dict[str | None, list[int]] = {system_of(each): [] for each in records}
    for at, each in enumerate(train):
        if (system := system_of(each)) in places:
            places[system].append(at)
    return [train.take(each) for each in places.values()]


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
