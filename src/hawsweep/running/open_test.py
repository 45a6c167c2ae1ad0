"""The end of a sweep: the winner and the untuned models answer the test split, and the questions of
retention.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from hawsweep.data.records import Record
from hawsweep.errors import StudyError, TravelError
from hawsweep.layout import SAMPLE_FILES
from hawsweep.scoring.score import Score, write_samples
from hawsweep.study.attributes import RETENTION, TEST
from hawsweep.study.baselines import best_other, few_shot_values, model_of
from hawsweep.study.confirm import winner
from hawsweep.study.travel import fetch
from hawsweep.study.trials import (
    adapter_dir,
    is_untested,
    misses_retention,
    n_test_opened,
    record_test_opened,
)
from hawsweep.trial.measure_base import score_prompt, score_test
from hawsweep.trial.prompts import Prompt, pick
from hawsweep.trial.retention import score_retention

if TYPE_CHECKING:
    from hawsweep.running.worker import Worker


def open_test(worker: "Worker", study: optuna.Study, questions: Sequence[Record]) -> None:
    """Open the test split for the best trial and the base, and see what the trial keeps.

    Args:
        questions: Those of retention.
    """
    best = winner(study)
    if best is None:
        worker.tell("test_end")
        return
    if untested := is_untested(study, best):
        worker.tell("test_start", number=best.number)
    try:
        # Another machine may have trained it.
        fetch(study, worker.place, best, waiting=worker.is_patient)
        adapter = adapter_dir(study, worker.place, best.number)
    except (StudyError, TravelError) as fault:
        what = "test split is not opened" if untested else "questions of retention are not answered"
        worker.tell("not_told", text=f"the {what}: {fault}".removesuffix("."))
        worker.tell("test_end")
        return
    if untested:
        _answer_test(worker, study, best, adapter)
    if misses_retention(study, worker.spec, best):
        worker.tell("retention_start", number=best.number, n_prompts=len(questions))
        _keep_retention(worker, study, best, adapter, questions)
    worker.tell("test_end", number=best.number)


def _answer_test(worker: "Worker", study: optuna.Study, best: FrozenTrial, adapter: Path) -> None:
    model = worker.spec.model_of(best.params)
    worker.use(model)
    record_test_opened(study)  # before the first answer: a worker that dies here has opened it
    chosen = few_shot_values(study, model_of(study, best))
    scores = score_test(worker.context, best, adapter, chosen)
    _write_answers(worker, "test", best, scores)
    summary: dict[str, Any] = {kind: score.summary() for kind, score in scores.items()}
    if "few_shot" in summary:
        summary["few_shot"] |= pick(worker.context.prompts, chosen).about
    answer_test_by_other(worker, study, model)  # perhaps with another model
    study.set_user_attr(
        TEST,
        {
            "trial_number": best.number,
            "n_prompts": len(worker.context.test_prompts),
            "n_opened": n_test_opened(study),
            **summary,
        },
    )


def _keep_retention(
    worker: "Worker",
    study: optuna.Study,
    best: FrozenTrial,
    adapter: Path,
    questions: Sequence[Record],
) -> None:
    assert worker.spec.retention is not None
    worker.use(worker.spec.model_of(best.params))
    chosen = few_shot_values(study, model_of(study, best))
    scores = score_retention(worker.context, best, adapter, chosen, questions)
    _write_answers(worker, "retention", best, scores)
    about = {"trial_number": best.number, "data": worker.spec.retention.data}
    study.set_user_attr(RETENTION, {**about, "n_prompts": len(questions)})


def _write_answers(
    worker: "Worker", kind: str, best: FrozenTrial, scores: Mapping[str, Score]
) -> None:
    folder = worker.place.trial_dir(worker.name, best.number)
    base = worker.base_dir(worker.spec.model_of(best.params))
    for system, score in scores.items():
        where = folder if system == "trial" else base
        write_samples(where / f"{kind}_{SAMPLE_FILES[system]}", score)


def answer_test_by_other(worker: "Worker", study: optuna.Study, model: str) -> None:
    """Let the best untuned model answer the test prompts, if it is not the winner's base."""
    other = best_other(study, model)
    if other is None or other.model in worker.left_out:
        return
    worker.use(other.model)
    prompts = worker.context.prompts if other.kind == "few_shot" else []
    prompt = pick(prompts, other.values) if prompts else Prompt()
    answers = score_prompt(worker.context, prompt, worker.context.test_prompts)
    file = f"test_{SAMPLE_FILES[other.kind]}"
    write_samples(worker.base_dir(other.model) / file, answers)
