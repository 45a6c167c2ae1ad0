"""The texts of the notes on a study and its trials, in Markdown for optuna-dashboard."""

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
from hawsweep.markdown import code, plain, table
from hawsweep.notes.attachments import REPORT, address, offers_of
from hawsweep.results.leaderboard import TrialRow, leaderboard, trial_row
from hawsweep.results.verdict import judge_study
from hawsweep.spec.space import MODEL
from hawsweep.study.attributes import CONFIRMS, SEED
from hawsweep.study.baselines import base_dir, base_values, score_of
from hawsweep.study.confirm import confirmations, winner
from hawsweep.study.place import Place
from hawsweep.study.trials import count_finished
from hawsweep.text import duration, faults_text, finite, number, score_range, setting, short_name

_N_SAMPLES, _N_ROWS = 5, 5


@dataclass(frozen=True)
class Note:
    """A note in Markdown.

    Attributes:
        has_files: Whether the files of the study or trial were on this machine when it was made.
    """

    body: str
    has_files: bool


def study_note(opened: optuna.Study, place: Place, *, ended: bool) -> Note:
    """The note on a study: its sweep, verdict, progress, and next commands.

    Args:
        ended: Whether no process runs it. Only then the verdict is computed, which takes a moment.
    """
    name = opened.study_name
    if name.endswith(CONFIRM_SUFFIX):
        of = code(name.removesuffix(CONFIRM_SUFFIX))
        return Note(
            f"The best settings of the study {of}, trained again with new seeds that took no part "
            f"in the choice. The results are in the note of {of}.",
            has_files=True,
        )
    verdict = _judged(opened, place) if ended else None
    sentences = () if verdict is None else verdict.sentences
    said = [plain(f"{each[:1].upper()}{each[1:]}", 400) for each in sentences]
    parts = [
        plain(opened.user_attrs.get("description") or "", 400),
        "\n".join((f"**{said[0]}**", *said[1:])) if said else "",
        " ".join(text for text in (_test_text(opened), _again_text(opened)) if text),
        _standing(opened, ended=ended),
        _rows_table(opened),
        _about(opened),
        _report(opened, place),
        _next(opened, ended=ended),
    ]
    return Note("\n\n".join(part for part in parts if part), verdict is not None)


def trial_note(opened: optuna.Study, place: Place, trial: FrozenTrial) -> Note:
    """The note on a trial: settings, plan, reason of its end, and some answers."""
    folder, base = _folders(opened, place, trial)
    row = trial_row(trial)
    samples = _samples(folder, base) if trial.state == TrialState.COMPLETE else []
    settings = [[code(key), code(setting(value))] for key, value in row.settings.items()]
    parts = [
        _outcome(opened, row),
        _origin(trial),
        table(["setting", "value"], settings, right=(1,)) if settings else "",
        _measured(trial, row),
        _samples_table(samples),
        _where(opened, trial),
    ]
    return Note("\n\n".join(part for part in parts if part), folder.is_dir())


def _judged(opened: optuna.Study, place: Place) -> Any:
    try:
        return judge_study(opened, place)
    except StudyError:  # commands that need the damaged file report it
        return None


def _test_text(opened: optuna.Study) -> str:
    test = opened.user_attrs.get("test")
    if test is None:
        return ""
    tuned, base = (score_of(test[key]) for key in ("trial", "base"))
    again = f", opened {test['n_opened']} times" if test["n_opened"] > 1 else ""
    return (
        f"Test split ({test['n_prompts']} prompts{again}): trial {test['trial_number']} "
        f"**{tuned:.4f}**, base {base:.4f} ({tuned - base:+.4f})."
    )


def _again_text(opened: optuna.Study) -> str:
    confirmed = confirmations(opened)
    if not confirmed:
        return ""
    first = confirmed[0]
    return (
        f"Trained again with new seeds, trial {first.trial_number} scores {first.mean:.4f}; it was "
        f"chosen at {first.selected:.4f}."
    )


def _standing(opened: optuna.Study, *, ended: bool) -> str:
    trials = opened.get_trials(deepcopy=False)
    states = Counter(trial_row(trial).state for trial in trials)
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    done, asked = count_finished(opened), _how(opened).get("trials")
    told = f" ({counted})" if counted else ""
    if not ended:
        return f"Under way: {done} of {asked or '?'} trials{told}."
    if asked is not None and done < asked:
        return f"Stopped after {done} of {asked} trials{told}; `hawsweep start` goes on."
    return f"Done: {done} trials{told}."


def _how(opened: optuna.Study) -> Mapping[str, Any]:
    attrs = opened.user_attrs
    return {**attrs.get("spec", {}), **attrs.get("how", {})}


def _rows_table(opened: optuna.Study) -> str:
    rows = leaderboard(opened)
    ranked = [row for row in rows if row.score is not None and row.state == "complete"]
    shown = [row for row in rows if row in ranked[:_N_ROWS] or row.state == "base"]
    if not shown:
        return ""
    keys = list(dict.fromkeys(key for row in shown for key in row.settings))
    titles = ["trial", *(plain(short_name(key)) for key in keys), "val loss", _metric(opened)]
    again = any(row.confirmed is not None for row in shown)
    titles += ["95 %", *(["confirmed"] if again else []), "peak GB", "time"]
    cells = [
        [
            plain(row.label),
            *(plain(setting(row.settings.get(key))) for key in keys),
            number(row.val_loss, "{:.3f}"),
            number(row.score, "{:.4f}"),
            score_range(row.low, row.high, is_short=False),
            *([number(row.confirmed, "{:.4f}")] if again else []),
            number(row.peak_memory_bytes, "{:.2f}", 1e-9),
            "" if row.time_s is None else duration(row.time_s),
        ]
        for row in shown
    ]
    return table(titles, cells, right=range(1, len(titles)))


def _metric(opened: optuna.Study) -> str:
    names = opened.metric_names
    return plain(names[0]) if names else "score"


def _about(opened: optuna.Study) -> str:
    spec = opened.user_attrs.get("spec", {})
    data = spec.get("data", "?")
    named = data if isinstance(data, list) else [data]
    texts = [str(each.get("path", each)) if isinstance(each, dict) else str(each) for each in named]
    searched = ", ".join(code(key) for key in spec.get("search", {}))
    text = f"{code(str(spec.get('model', '?')))} on {', '.join(map(code, texts))}"
    return f"{text}; searched: {searched}." if searched else f"{text}."


def _report(opened: optuna.Study, place: Place) -> str:
    if REPORT not in offers_of(opened, place, None).values():
        return ""
    return f"[The report]({address(opened, REPORT)})"


def _next(opened: optuna.Study, *, ended: bool) -> str:
    name = opened.study_name
    commands = [f"hawsweep status {name} --why"]
    if not ended:
        commands = [f"hawsweep status {name} --watch"]
    elif winner(opened) is not None:
        commands += [f"hawsweep compare {name}", f"hawsweep export {name} --fuse"]
    return "\n".join(("```", *commands, "```"))


def _folders(opened: optuna.Study, place: Place, trial: FrozenTrial) -> tuple[Path, Path]:
    """The folders with the answers of the trial and of its base."""
    name = opened.study_name.removesuffix(CONFIRM_SUFFIX)
    folder_of = place.trial_dir if name == opened.study_name else place.confirm_dir
    return folder_of(name, trial.number), base_dir(place, name, trial.params.get(MODEL, ""))


def _outcome(opened: optuna.Study, row: TrialRow) -> str:
    reason = "" if row.reason is None else plain(row.reason, 400)
    if row.state != "complete" or row.score is None:
        words = {"fail": "Failed", "infeasible": "Does not fit into memory"}
        return f"**{words.get(row.state, row.state.capitalize())}**" + (reason and f": {reason}.")
    text = f"**{_metric(opened)} {row.score:.4f}**"
    if row.low is not None and row.high is not None:
        text += f" (95 % {score_range(*finite(row.low, row.high), is_short=False)})"
    base = base_values(opened, row.settings)
    if base:
        text += f", {row.score - score_of(base):+.4f} over the base"
    return f"{text}." + (reason and f" {reason[:1].upper()}{reason[1:]}.")


def _origin(trial: FrozenTrial) -> str:
    attrs, said = trial.user_attrs, []
    if CONFIRMS in attrs:
        said.append(f"The settings of trial {attrs[CONFIRMS]} with seed {attrs.get(SEED, '?')}.")
    if "repeats" in attrs:
        said.append(f"Retry of trial {attrs['repeats']}.")
    if continued := attrs.get("continues"):
        said.append(
            f"Went on from iteration {continued['iteration']} of trial {continued['trial']}."
        )
    if "suggested_by" in attrs:
        said.append(f"Suggested by {plain(str(attrs['suggested_by']))}.")
    return " ".join(said)


def _measured(trial: FrozenTrial, row: TrialRow) -> str:
    said = []
    if row.val_loss is not None:
        said.append(f"Val loss {row.val_loss:.4f}, the lowest, at iteration {row.best_iteration}.")
    numbers = [("chrF", row.chrf), ("BLEU", row.bleu)]
    if known := [f"{title} {value:.1f}" for title, value in numbers if value is not None]:
        said.append(f"{', '.join(known)}.")
    if row.faults:
        said.append(f"Faulty answers: {plain(faults_text(row.faults))}.")
    if plan := trial.user_attrs.get("plan"):
        peaks = [
            f"{word} peak {value / 1e9:.3g} GB"
            for word, value in (
                ("predicted", plan.get("peak_bytes")),
                ("measured", row.peak_memory_bytes),
            )
            if value
        ]
        said.append(f"Plan: {', '.join((plain(str(plan.get('text', '?'))), *peaks))}.")
    if row.time_s is not None:
        said.append(f"Took {duration(row.time_s)}.")
    return " ".join(said)


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


def _where(opened: optuna.Study, trial: FrozenTrial) -> str:
    name = opened.study_name
    if name.endswith(CONFIRM_SUFFIX):
        folder = f"{name.removesuffix(CONFIRM_SUFFIX)}/confirm/{trial.number:04d}"
        return f"Its files: {code(folder)} in the studies' folder."
    commands = [f"hawsweep show {name} {trial.number}"]
    if trial.state == TrialState.COMPLETE:
        commands.append(f"hawsweep export {name} --trial {trial.number} --fuse")
    lines = "\n".join(("```", *commands, "```"))
    folder = code(f"{name}/trials/{trial.number:04d}")
    return f"Its files: {folder} in the studies' folder.\n\n{lines}"
