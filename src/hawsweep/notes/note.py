"""The texts of the notes on a study and its trials, in Markdown for optuna-dashboard."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyError
from hawsweep.files import read_json_lines
from hawsweep.layout import CONFIRM_SUFFIX, SAMPLE_FILES
from hawsweep.markdown import code, plain, render, table
from hawsweep.notes.attachments import REPORT, address, offers_of
from hawsweep.results.html_table import NUMBERS
from hawsweep.results.importance import FEWEST_TRIALS
from hawsweep.results.leaderboard import TrialRow, leaderboard, trial_row
from hawsweep.results.translations import Answer, Translations, spread, translations
from hawsweep.results.verdict import judge_study
from hawsweep.spec.space import MODEL
from hawsweep.study.attributes import (
    CONFIRMS,
    DESCRIPTION,
    PLAN,
    SEED,
    SPEC,
)
from hawsweep.study.baselines import base_dir, base_values, score_of
from hawsweep.study.confirm import confirmations, confirming_study, winner
from hawsweep.study.optuna_door import study_id
from hawsweep.study.place import Place
from hawsweep.study.study import known_spec
from hawsweep.study.trials import best_trial, complete_trials, count_finished, read_test
from hawsweep.text import (
    counted,
    duration,
    faults_text,
    finite,
    opened_text,
    score_range,
    setting,
    short_name,
)

_TEMPLATES = Path(__file__).parent / "pages"
_N_SAMPLES, _N_ROWS, _N_TRANSLATIONS = 5, 5, 3
_SYSTEMS = ("base", "trial")


@dataclass(frozen=True)
class Note:
    """A note in Markdown.

    Attributes:
        has_files: Whether the files of the study or trial were on this machine when it was made.
    """

    body: str
    has_files: bool


def study_note(study: optuna.Study, place: Place, *, ended: bool) -> Note:
    """The note on a study: its sweep, verdict, progress, and next commands.

    Args:
        ended: Whether no process runs it. Only then the verdict is computed, which takes a moment.
    """
    name = study.study_name
    if name.endswith(CONFIRM_SUFFIX):
        of = code(name.removesuffix(CONFIRM_SUFFIX))
        return Note(
            f"The best settings of the study {of}, trained again with new seeds that took no part "
            f"in the choice. The results are in the note of {of}.",
            has_files=True,
        )
    verdict = _judged(study, place) if ended else None
    sentences = () if verdict is None else verdict.sentences
    confirmed = confirmations(study)
    answers = None if verdict is None else translations(study, place)
    has_report = REPORT in offers_of(study, place, None).values()
    body = _rendered(
        "study",
        study=name,
        ended=ended,
        description=study.user_attrs.get(DESCRIPTION) or "",
        sentences=[f"{each[:1].upper()}{each[1:]}" for each in sentences],
        test=(test := read_test(study)),
        opened="" if test is None else opened_text(test["n_opened"]),
        again=confirmed[0] if confirmed else None,
        standing=_standing(study, ended=ended),
        rows=_rows_table(study, None if verdict is None else verdict.use),
        about=_about(study),
        report=address(study, REPORT) if has_report else None,
        uses=verdict is not None and verdict.ships,
        best_value=_best_value(study),
        importance=_importance(study),
        new_seeds=_confirming_page(study),
        split="" if answers is None else answers.split,
        translated=_translations_table(answers),
        score_of=score_of,
    )
    return Note(body, verdict is not None)


def _best_value(study: optuna.Study) -> int | None:
    """The trial that optuna-dashboard calls the best, if that is another than the winner."""
    by_value, best = best_trial(study), winner(study)
    return None if by_value is None or by_value == best else by_value.number


def _importance(study: optuna.Study) -> str:
    """How many trials the dashboard's importance rests on."""
    n = len(complete_trials(study))
    if n < 2:
        return ""
    few = f", too few to go by: it takes {FEWEST_TRIALS}" if n < FEWEST_TRIALS else ""
    return f"The importance on the dashboard's page rests on {counted(n, 'complete trial')}{few}."


def _confirming_page(study: optuna.Study) -> str:
    """The address of the runs with new seeds in the dashboard, whose list leaves them out."""
    found = confirming_study(study)
    return "" if found is None else f"/dashboard/studies/{study_id(found)}"


def _translations_table(answers: Translations | None) -> str:
    """Some translations, from the largest gain to the largest loss."""
    if answers is None:
        return ""
    titles = ["source", "reference", *map(plain, (answers.labels[each] for each in _SYSTEMS))]
    rows = [
        [
            plain(row.source),
            plain(row.reference),
            *(_answer_text(row.answers[each]) for each in _SYSTEMS),
            f"{row.gain:+.3f}",
        ]
        for row in spread(answers.rows, _N_TRANSLATIONS)
    ]
    return table([*titles, "gain"], rows, right=(4,))


def _answer_text(answer: Answer) -> str:
    missed = f" (near miss: {plain(answer.near_miss)})" if answer.near_miss else ""
    return f"{plain(answer.output) or '(empty)'}{missed}"


def trial_note(study: optuna.Study, place: Place, trial: FrozenTrial) -> Note:
    """The note on a trial: settings, plan, reason of its end, and some answers."""
    folder, base_folder = _folders(study, place, trial)
    name, attrs, row = study.study_name, trial.user_attrs, trial_row(trial)
    base, is_complete = base_values(study, row.settings), trial.state == TrialState.COMPLETE
    settings = [[code(key), code(setting(value))] for key, value in row.settings.items()]
    commands = [f"hawsweep show {name} {trial.number}"]
    if is_complete:
        commands.append(f"hawsweep export {name} --trial {trial.number} --fuse")
    is_confirm = name.endswith(CONFIRM_SUFFIX)
    kept_in = f"{name.removesuffix(CONFIRM_SUFFIX)}/{'confirm' if is_confirm else 'trials'}"
    body = _rendered(
        "trial",
        row=row,
        attrs=attrs,
        metric=_metric(study),
        reason="" if row.reason is None else plain(row.reason, 400),
        base=score_of(base) if base else None,
        confirms=attrs.get(CONFIRMS),
        seed=attrs.get(SEED, "?"),
        settings=table(["setting", "value"], settings, right=(1,)) if settings else "",
        plan=_plan_text(attrs.get(PLAN), row),
        samples=_samples_table(_samples(folder, base_folder) if is_complete else []),
        kept_in=f"{kept_in}/{trial.number:04d}",
        commands=[] if is_confirm else commands,
        duration=duration,
        faults_text=faults_text,
        finite=finite,
        score_range=score_range,
    )
    return Note(body, folder.is_dir())


def _rendered(name: str, **values: Any) -> str:
    """A note by its template, without the room that what is missing leaves."""
    text = re.sub(r" +$", "", render(_TEMPLATES / f"{name}.md.j2", **values), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _plan_text(plan: Mapping[str, Any] | None, row: TrialRow) -> str:
    """How a trial was executed, with its predicted and its measured peak memory."""
    if not plan:
        return ""
    peaks = (("predicted", plan.get("peak_bytes")), ("measured", row.peak_memory_bytes))
    texts = (f"{word} peak {value / 1e9:.3g} GB" for word, value in peaks if value)
    return ", ".join((plain(str(plan.get("text", "?"))), *texts))


def _judged(study: optuna.Study, place: Place) -> Any:
    try:
        return judge_study(study, place)
    except StudyError:  # commands that need the damaged file report it
        return None


def _standing(study: optuna.Study, *, ended: bool) -> str:
    rows = [trial_row(trial) for trial in study.get_trials(deepcopy=False)]
    with_result = Counter(row.state for row in rows if row.state in ("complete", "pruned"))
    others = Counter(row.state for row in rows) - with_result
    done, asked = count_finished(study), _n_trials(study)
    told = f" ({_counted(with_result)})" if with_result else ""
    told += f", and {_counted(others)}" if others else ""
    if not ended:
        return f"Under way: {done} of {counted(asked, 'trial') if asked else '? trials'}{told}."
    if asked is not None and done < asked:
        told += ". `hawsweep start` goes on."
        return f"Stopped after {done} of {counted(asked, 'trial')}{told}"
    return f"Done: {counted(done, 'trial')}{told}."


def _counted(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _n_trials(study: optuna.Study) -> int | None:
    """The number of trials to finish: the last start's, or what it was extended to."""
    spec = known_spec(study)
    return None if spec is None else spec.trials


def _rows_table(study: optuna.Study, use: int | None) -> str:
    rows = leaderboard(study)
    ranked = [row for row in rows if row.score is not None and row.state == "complete"]
    shown = [row for row in rows if row in ranked[:_N_ROWS] or row.state == "base"]
    if not shown:
        return ""
    keys = list(dict.fromkeys(key for row in shown for key in row.settings))
    again = ["confirmed"] if any(row.confirmed is not None for row in shown) else []
    numbers = ["val loss", "score", "95 %", *again, "peak GB", "time"]
    named = [_metric(study) if each == "score" else each for each in numbers]
    titles = ["trial", *(plain(short_name(key)) for key in keys), *named]
    cells = [
        [
            f"**{plain(row.label)}** (use)" if row.label == str(use) else plain(row.label),
            *(plain(setting(row.settings.get(key))) for key in keys),
            *(NUMBERS[each](row) for each in numbers),
        ]
        for row in shown
    ]
    return table(titles, cells, right=range(1, len(titles)))


def _metric(study: optuna.Study) -> str:
    names = study.metric_names
    return plain(names[0]) if names else "score"


def _about(study: optuna.Study) -> str:
    spec = study.user_attrs.get(SPEC, {})
    data = spec.get("data", "?")
    named = data if isinstance(data, list) else [data]
    texts = [str(each.get("path", each)) if isinstance(each, dict) else str(each) for each in named]
    searched = ", ".join(code(key) for key in spec.get("search", {}))
    text = f"{code(str(spec.get('model', '?')))} on {', '.join(map(code, texts))}"
    return f"{text}; searched: {searched}." if searched else f"{text}."


def _folders(study: optuna.Study, place: Place, trial: FrozenTrial) -> tuple[Path, Path]:
    """The folders with the answers of the trial and of its base."""
    name = study.study_name.removesuffix(CONFIRM_SUFFIX)
    folder_of = place.trial_dir if name == study.study_name else place.confirm_dir
    return folder_of(name, trial.number), base_dir(place, name, trial.params.get(MODEL, ""))


def _samples(folder: Path, base: Path) -> list[tuple[Mapping[str, Any], str]]:
    """The first samples, beside the base's answers."""
    try:
        tuned = read_json_lines(folder / SAMPLE_FILES["trial"])
        before = read_json_lines(base / SAMPLE_FILES["base"])
    except StudyError:
        return []
    outputs = {each.get("source"): str(each.get("output", "")) for each in before}
    return [(each, outputs.get(each.get("source"), "")) for each in tuned[:_N_SAMPLES]]


def _samples_table(samples: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    if not samples:
        return ""
    rows = [
        [
            *(plain(str(sample.get(key, ""))) for key in ("source", "reference")),
            plain(before),
            plain(str(sample.get("output", ""))),
            f"{score_of(sample):.3f}",
        ]
        for sample, before in samples
    ]
    return table(["source", "reference", "base", "this trial", "score"], rows, right=(4,))
