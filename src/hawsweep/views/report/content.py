"""The content of a report: verdict, numbers with intervals, and how to reproduce the study.

All texts here are plain: the modules that make a page or Markdown escape them.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from typing import Any

import optuna

from hawsweep.machine.processes import supervisor_of
from hawsweep.results.data_curve import known_curve
from hawsweep.results.groups import GroupRow, groups
from hawsweep.results.importance import find_insight
from hawsweep.results.leaderboard import TrialRow, leaderboard, trial_row
from hawsweep.results.price import prices
from hawsweep.results.review import review_of
from hawsweep.results.translations import Translations, translations
from hawsweep.results.verdict import judge_study, without_verdict
from hawsweep.results.what_is_left import Remaining, find_remaining
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import DESCRIPTION, SELF_CHECK, STARTS, TRIED
from hawsweep.study.baselines import baselines, model_of, prompt_text, score_of
from hawsweep.study.confirm import Confirmation, confirmations, confirming_study, winner
from hawsweep.study.place import Place
from hawsweep.study.queue import n_running_here
from hawsweep.study.study import known_spec
from hawsweep.study.trials import read_test, trial_of
from hawsweep.text import (
    counted,
    duration,
    faults_text,
    number,
    opened_text,
    score_range,
    settings_text,
)
from hawsweep.views.figure_style import peak_bytes
from hawsweep.views.report.redaction import Redaction
from hawsweep.views.report.reproduction import asked_of, commands, made_with
from hawsweep.views.report.scale import Scale, make_scale
from hawsweep.views.terminal.data_curve import curve_table
from hawsweep.views.terminal.plain_tables import Cells, cells_of, plain_text
from hawsweep.views.terminal.price import FRONT_TEXT, price_table
from hawsweep.views.terminal.tables import MOST_ROWS, leaderboard_table, shown_rows, then_text
from hawsweep.views.terminal.verdict import (
    agreement_lines,
    confirmation_lines,
    groups_table,
    insight_table,
    regression_lines,
    self_check_lines,
    verdict_lines,
)

# The most rows of a report's leaderboard.
_MOST_ROWS = 300


@dataclass(frozen=True)
class EndedTrial:
    """A trial that did not complete, and the reason."""

    trial: str
    state: str
    settings: str
    reason: str


@dataclass(frozen=True)
class Report:
    """The content of a report in plain texts.

    Attributes:
        made: The time of the report, in words.
        state: Whether the study runs, was stopped or is done, in a sentence.
        is_final: Whether no work is left.
        headline: The most important sentence.
        ships: Whether the winner is worth shipping; None before there is a verdict.
        said: The other sentences of the verdict, a warning where the test split was opened more
            than once, and what new seeds say.
        facts: Model, data, trials, time and date, each after its name.
        scale: Trial and untuned model between chance and right; None where that is not known.
        settings: Of the winner.
        board: The leaderboard; ``states`` has the state of each row, and ``n_more`` trials are left
            out.
        test: The scores on the test split; None if it was not opened. ``tested`` says how.
        translations: The winner's answers beside its untuned model's; None before there are both.
        reviewed: What a review of them found, in sentences.
        groups_split: The split that ``groups`` are of.
        known: What the search knows, in sentences.
        agreement: How well validation loss predicts the score.
        price: What the trials cost, and ``price_text`` how to read it.
        data_curve: The best settings trained on parts of the data; ``data_said`` has what follows.
        memory: How well peaks were predicted.
        ended: Trials that were pruned, failed or did not fit.
        made_with: Versions, fingerprints and the machine.
        spec: The sweep with all defaults, as YAML.
        reproduce: Commands and their purposes.
    """

    name: str
    description: str
    metric: str
    made: str
    version: str
    state: str
    is_final: bool
    headline: str
    ships: bool | None
    said: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    scale: Scale | None
    winner: int | None
    settings: str
    board: Cells
    states: tuple[str, ...]
    n_more: int
    test: Cells | None
    tested: str
    translations: Translations | None
    reviewed: tuple[str, ...]
    groups: tuple[GroupRow, ...]
    groups_split: str
    group_cells: Cells
    losses: tuple[str, ...]
    marginals: Cells
    known: tuple[str, ...]
    agreement: tuple[str, ...]
    price: Cells
    price_text: str
    data_curve: Cells | None
    data_said: tuple[str, ...]
    memory: str
    confirmed: tuple[Confirmation, ...]
    self_check: tuple[str, ...]
    ended: tuple[EndedTrial, ...]
    made_with: tuple[tuple[str, str], ...]
    spec: str
    reproduce: tuple[tuple[str, str], ...]


def make_report(study: optuna.Study, place: Place, now: datetime | None = None) -> Report:
    """The content of the report of a study in any state.

    Args:
        now: The time of the report.
    """
    redact = Redaction(place)
    rows, best, spec = leaderboard(study), winner(study), _spec(study)
    shown, n_more = shown_rows(rows, _MOST_ROWS)
    verdict, insight = judge_study(study, place), find_insight(study)
    confirmed, found_groups = confirmations(study), groups(study, place)
    test, check = read_test(study), study.user_attrs.get(SELF_CHECK)
    warning = "" if test is None else opened_text(test["n_opened"])
    used = None if verdict is None else verdict.use
    headline, *said = _plain(verdict_lines(verdict)) or [_nothing_yet(study, rows)]
    standing, is_run = find_remaining(study, spec, rows), _is_run(study, place)
    curve = known_curve(study)
    metrics = study.metric_names
    return Report(
        name=study.study_name,
        description=str(study.user_attrs.get(DESCRIPTION) or ""),
        metric=metrics[0] if metrics else "score",
        made=f"{now or datetime.now().astimezone():%Y-%m-%d %H:%M %Z}".strip(),
        version=version("hawsweep"),
        state=_state(standing, is_run=is_run),
        is_final=standing.is_done and not is_run,
        headline=headline,
        ships=None if verdict is None else verdict.ships,
        said=(*said, *_plain([warning, *confirmation_lines(confirmed)])),
        facts=tuple((title, redact(text)) for title, text in _facts(study, rows)),
        scale=make_scale(study),
        winner=None if best is None else best.number,
        settings="" if best is None else redact(settings_text(best.params)),
        board=_score_second(cells_of(leaderboard_table(shown, sys.maxsize, used))).changed(redact),
        states=tuple(row.state for row in shown),
        n_more=n_more,
        test=None if test is None else _test_cells(study, test),
        tested="" if test is None else _tested_text(test),
        translations=translations(study, place),
        reviewed=() if (review := review_of(study, place)) is None else tuple(review.sentences()),
        groups=tuple(found_groups),
        groups_split="validation" if test is None else "test",
        group_cells=cells_of(groups_table(found_groups)),
        losses=tuple(_plain(regression_lines(found_groups))),
        marginals=cells_of(insight_table(insight)).changed(redact),
        known=tuple(redact(each) for each in standing.known),
        agreement=tuple(_plain(agreement_lines(insight))),
        price=cells_of(price_table(prices(rows), MOST_ROWS)),
        price_text=FRONT_TEXT,
        data_curve=None if curve is None else cells_of(curve_table(curve)),
        data_said=() if curve is None else tuple(curve.sentences()),
        memory=_memory_text(study),
        confirmed=tuple(confirmed),
        self_check=tuple(_plain(self_check_lines(check) if check else [])),
        ended=tuple(_ended(study, redact)),
        made_with=tuple((redact(title), redact(text)) for title, text in made_with(study, spec)),
        spec="" if spec is None else redact(spec.dump_yaml()),
        reproduce=tuple(commands(study, best, is_used=used is not None)),
    )


def _plain(lines: Sequence[str]) -> list[str]:
    return [plain_text(line) for line in lines if line]


def _spec(study: optuna.Study) -> SweepSpec | None:
    spec = known_spec(study)
    if spec is None:
        return None
    return spec.model_copy(update={"description": study.user_attrs.get(DESCRIPTION, "")})


def _nothing_yet(study: optuna.Study, rows: Sequence[TrialRow]) -> str:
    return without_verdict(study) if rows else "This study has no trials yet."


def _is_run(study: optuna.Study, place: Place) -> bool:
    is_watched = supervisor_of(place.study_dir(study.study_name)) is not None
    return is_watched or n_running_here(study) > 0


def _state(standing: Remaining, *, is_run: bool) -> str:
    of = f"{standing.finished} of {counted(standing.n_trials, 'trial')}"
    if is_run:
        return f"The study is still running: {of} {'is' if standing.n_trials == 1 else 'are'} done."
    if standing.is_done:
        return f"The study is done: {counted(standing.finished, 'trial')}."
    if standing.trials_left:
        return f"The study was stopped after {of}."
    return f"The trials are done; left: {then_text(standing)}."


def _facts(study: optuna.Study, rows: Sequence[TrialRow]) -> list[tuple[str, str]]:
    states = Counter(row.state for row in rows if row.state not in ("base", "reference"))
    trials = f"{states['complete']} of {states.total()} complete"
    facts = [*asked_of(study), ("trials", trials)]
    facts += [("untuned prompt", text) for text in _prompts(study)]
    if (seconds := _time_s(study)) is not None:
        facts.append(("time", duration(seconds)))
    ended = [trial.datetime_complete for trial in study.get_trials(deepcopy=False)]
    if last := max(filter(None, ended), default=None):
        facts.append(("last trial", f"{last:%Y-%m-%d %H:%M}"))
    return facts


def _prompts(study: optuna.Study) -> Iterator[str]:
    """The best prompt of each untuned model that was tried with several."""
    spec = known_spec(study)
    for each in baselines(study):
        if spec is not None and (tried := each.values.get(TRIED)):
            number = each.values.get("instruction", 0)
            text = f": {spec.scoring.prompt.instructions[number - 1]}" if number else ""
            best = f"{prompt_text(each.values)}, the best of {len(tried)} by the validation prompts"
            yield f"{each.model + ': ' if each.model else ''}{best}{text}"


def _time_s(study: optuna.Study) -> float | None:
    """From the first start to the last trial's end, runs with new seeds included."""
    again = confirming_study(study)
    trials = [*study.get_trials(deepcopy=False), *(again.get_trials() if again else ())]
    ended = [each.datetime_complete.timestamp() for each in trials if each.datetime_complete]
    starts = [each["time"] for each in study.user_attrs.get(STARTS, ())]
    return max(0.0, max(ended) - min(starts)) if starts and ended else None


def _tested_text(test: Mapping[str, Any]) -> str:
    asked = "the winner and the untuned model alone answered them, when the trials were done."
    return f"{counted(test['n_prompts'], 'prompt')}: {asked}"


def _test_cells(study: optuna.Study, test: Mapping[str, Any]) -> Cells:
    labels = {"trial": f"trial {test['trial_number']}"}
    model = model_of(study, trial_of(study, test["trial_number"]))
    of_it = [each for each in baselines(study) if each.model == model]
    labels |= {each.kind: each.label for each in of_it[::-1]}
    rows = [
        (
            label,
            f"{score_of(known):.4f}",
            score_range(known.get("low"), known.get("high"), is_short=False),
            number(known.get("similarity"), "{:.4f}"),
            number(known.get("chrf"), "{:.1f}"),
            number(known.get("bleu"), "{:.1f}"),
            number(known.get("exact_match"), "{:.0%}"),
            faults_text(known.get("faults")),
        )
        for key, label in labels.items()
        if (known := test.get(key)) is not None
    ]
    titles = ("", "score", "95 %", "similarity", "chrF", "BLEU", "exact", "faults")
    return Cells(titles, (False, *[True] * 6, False), tuple(rows))


def _score_second(board: Cells) -> Cells:
    """A leaderboard with the score beside the trial, where a narrow screen shows it, and without
    empty columns.
    """
    at = board.titles.index("score")
    filled = [n for n in range(1, len(board.titles)) if any(row[n] for row in board.rows)]
    order = [0, at, *(n for n in filled if n != at)]
    return replace(
        board,
        titles=tuple(board.titles[n] for n in order),
        are_numbers=tuple(board.are_numbers[n] for n in order),
        rows=tuple(tuple(row[n] for n in order) for row in board.rows),
    )


def _memory_text(study: optuna.Study) -> str:
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    peaks = [each for trial in trials if (each := peak_bytes(trial)) is not None]
    if not peaks:
        return ""
    errors = [predicted / measured - 1 for predicted, measured in peaks]
    trials_text = f"{counted(len(peaks), 'complete trial')}"
    return (
        f"Of {trials_text} the predicted peak differs from the measured one by {min(errors):+.1%} "
        f"to {max(errors):+.1%}; the highest measured peak is "
        f"{max(measured for _, measured in peaks) / 1e9:.2f} GB."
    )


def _ended(study: optuna.Study, redact: Callable[[str], str]) -> list[EndedTrial]:
    order = ["fail", "infeasible", "pruned", "complete"]
    told = []
    for trial in study.get_trials(deepcopy=False):
        row = trial_row(trial)
        if row.state in order[:3] or (row.state == "complete" and row.reason):
            reason = redact(str(row.reason or "not recorded"))
            told.append(
                EndedTrial(row.label, row.state, redact(settings_text(row.settings)), reason)
            )
    return sorted(told, key=lambda each: order.index(each.state))
