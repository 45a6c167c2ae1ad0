"""What a tuned model keeps: it answers questions that its untuned model answered before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from hawsweep.data.prompt_file import with_answer
from hawsweep.data.records import Record
from hawsweep.data.tokens import split_system
from hawsweep.scoring.score import Score
from hawsweep.spec.space import apply_settings
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.trial.context import TrialContext
from hawsweep.trial.prompts import HasRoom, Prompt, pick, room_in


def score_retention(
    context: TrialContext,
    trial: optuna.trial.FrozenTrial,
    adapter_dir: Path,
    chosen: Mapping[str, Any],
    questions: Sequence[Record],
) -> dict[str, Score]:
    """The scores of the base, of the base with its best prompt, and of the trial, against the
    base's own answers. Questions that it answers with nothing are left out: none may be left, and
    then there are no scores.

    Args:
        chosen: The study's measurements of the base with its best prompt.
    """
    own = context.answers(questions)
    known = [at for at, answer in enumerate(own) if answer.text.strip()]
    if not known:
        return {}
    asked = [questions[at] for at in known]
    records = [with_answer(questions[at], own[at].text) for at in known]

    def score(shown: Sequence[Record]) -> Score:
        answers = context.answers(shown)
        return context.scorer.compare(
            records, [each.text for each in answers], [each.cut for each in answers]
        )

    scores = {"base": context.scorer.compare(records, [own[at].text for at in known])}
    if context.prompts:
        prompt = pick(context.prompts, chosen)
        has_room = room_in(context.spec, context.loaded)
        scores["few_shot"] = score([_of_any(prompt, each, has_room) for each in asked])
    with adapted(context.loaded.model, apply_settings(context.spec.train, trial.params)):
        load_adapter(context.loaded.model, adapter_dir)
        scores["trial"] = score(asked)
    return scores


def _of_any(prompt: Prompt, question: Record, has_room: HasRoom) -> Record:
    """A question asked with a prompt that was made for the data: with the examples' own system
    message, without which they are not shown.
    """
    given, own = split_system(question)
    system = split_system(prompt.examples[0])[0] if prompt.examples else []
    messages = [*(system or given), *own]
    asked = replace(question, content={**question.content, "messages": messages})
    return prompt.of(asked, has_room)
