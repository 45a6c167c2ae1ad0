"""A trial's answers to any prompts, beside its untuned model's; memory holds the model once."""

import json
from collections.abc import Iterator
from pathlib import Path

import optuna

from hawsweep.data.json_line import read_line
from hawsweep.data.load import load_data, prompt_of
from hawsweep.data.prompt_file import read_prompts
from hawsweep.data.records import Record
from hawsweep.data.tokens import common_system, split_system
from hawsweep.errors import DataError, StudyError
from hawsweep.models.load import LoadedModel
from hawsweep.scoring.score import Answer, stream_answer
from hawsweep.spec.space import apply_settings
from hawsweep.study.baselines import few_shot_values, model_of
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import adapter_dir, trial_of
from hawsweep.text import SayProgress
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.trial.adapted_model import load_model_of
from hawsweep.trial.prompts import Prompt, choose_prompts, pick, room_in


class SideBySide:
    """An untuned model and a trial of it, which answer the same prompts as scoring sends them.

    Args:
        checkpoint: The iteration of a kept checkpoint; None for the trial's best.
        few_shot: Also ask the untuned model with the study's best prompt for it.

    Attributes:
        labels: The names of the systems ``base``, ``few_shot`` and ``trial``, as they answer.
        max_tokens: The most tokens of an answer.

    Raises:
        StudyError: There is no such trial, adapter or example.
        DataError: The study's data, which has the format of its prompts, cannot be read.
    """

    def __init__(
        self,
        study: optuna.Study,
        place: Place,
        number: int,
        checkpoint: int | None = None,
        *,
        few_shot: bool = False,
        progress: SayProgress = lambda _: None,
    ) -> None:
        trial = trial_of(study, number)
        self._adapter = adapter_dir(study, place, number, checkpoint)
        self._study, self._spec = study, spec_of(study, trial, place)
        if few_shot and not self._spec.scoring.prompt.n_tried:
            raise StudyError(
                f"Study {study.study_name!r} has no examples: its scoring.prompt.examples is 0. "
                "Leave out --few-shot."
            )
        self._chosen = few_shot_values(study, model_of(study, trial))
        self._train = apply_settings(self._spec.train, trial.params)
        self._splits = load_data(self._spec.data, progress)
        valid = self._splits.valid
        self._system = [] if common_system(valid) is None else split_system(valid[0])[0]
        self._loaded: LoadedModel | None = None
        shown = {"few_shot": "few-shot base"} if few_shot else {}
        self.labels = {"base": "base", **shown, "trial": f"trial {number}"}
        self.model, self.max_tokens = self._spec.model, self._spec.scoring.max_tokens

    def prompt(self, text: str) -> Record:
        """A text as the study's data would have it: its prompt, system message and spelling.

        Raises:
            DataError: It is not UTF-8 text.
        """
        try:
            text.encode()
        except UnicodeEncodeError as fault:
            raise DataError(f"The prompt is not UTF-8 text: {text[:80]!r}.") from fault
        data = self._spec.data[0]
        is_of_table = data.path in self._splits.columns
        messages = [{"role": "user", "content": prompt_of(text, data) if is_of_table else text}]
        messages = [*self._system, *messages]
        return self._record(json.dumps({"messages": messages}), "The prompt")

    def read(self, path: Path) -> list[Record]:
        """The prompts of a file: a text each line; in a ``.jsonl`` file records, or texts as
        ``{"prompt": ...}``. Records are asked as they are.

        Raises:
            DataError: The file or a line of it cannot be read.
        """
        found = read_prompts(path, self._spec.data[0].normalize)
        return [each if isinstance(each, Record) else self.prompt(each) for each in found]

    def _record(self, line: str, where: str) -> Record:
        return Record(read_line(line, where, self._spec.data[0].normalize).content, where)

    def load(self, progress: SayProgress = lambda _: None) -> None:
        """Load the model.

        Raises:
            ModelError: It cannot be loaded.
        """
        self._loaded = load_model_of(self._study, self._spec, progress)

    def answers(self, record: Record) -> Iterator[tuple[str, Answer]]:
        """The systems' answers, one system after the other: after each token, which system it is
        and what it has said so far. ``load`` comes first.
        """
        assert self._loaded is not None
        scoring = self._spec.scoring
        untuned = {"base": record}
        if "few_shot" in self.labels:
            prompts = choose_prompts(self._spec, self._loaded, self._splits, [record])
            prompt = pick(prompts, self._chosen) if prompts else Prompt()
            untuned["few_shot"] = prompt.of(record, room_in(self._spec, self._loaded))
        for system, asked in untuned.items():
            for answer in stream_answer(self._loaded, asked, scoring):
                yield system, answer
        with adapted(self._loaded.model, self._train):
            load_adapter(self._loaded.model, self._adapter)
            for answer in stream_answer(self._loaded, record, scoring):
                yield "trial", answer
