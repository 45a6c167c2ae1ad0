"""What scores cost: the Pareto front of score, time and memory; and a cheaper trial in the best
one's place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import optuna

from hawsweep.layout import ADAPTER_DIR
from hawsweep.results.leaderboard import TrialRow
from hawsweep.results.verdict import cost_of, judge_study, trial_to_use
from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import CHOSEN
from hawsweep.study.confirm import best_of_all
from hawsweep.study.place import Place
from hawsweep.study.trials import n_test_opened, read_test

# Smaller differences in time and memory may be chance: other programs run beside a sweep.
TOLERANCE = 0.1
_HOUR_S = 3600.0


@dataclass(frozen=True)
class PriceRow:
    """The price of a complete trial.

    Attributes:
        score: By ``scoring.metric``, with its 95 % interval from ``low`` to ``high``.
        train_time_s: Of the training alone.
        adapter_bytes: The size of the adapter's file.
        gain_per_hour: The gain over the untuned model in an hour of training; None where the
            untuned model was not measured.
        is_on_front: Whether no other trial scores higher without taking more time or memory.
            Differences of time and memory below ``TOLERANCE`` count as none.
    """

    trial: int
    score: float
    low: float | None
    high: float | None
    train_time_s: float
    peak_memory_bytes: int
    adapter_bytes: int | None
    tokens_per_s: float | None
    gain_per_hour: float | None
    is_on_front: bool


def prices(rows: Sequence[TrialRow]) -> list[PriceRow]:
    """The prices of a leaderboard's complete trials, best score first; without those whose time or
    memory is not known.
    """
    bases = {
        row.settings.get(MODEL): row.score
        for row in rows
        # Neither examples nor an instruction in its prompt, whatever the model is called.
        if row.state == "base"
        and row.label.startswith("base")
        and ", instruction " not in row.label
    }
    found: list[PriceRow] = []
    complete = [row for row in rows if row.state == "complete" and row.score is not None]
    for row in sorted(complete, key=lambda row: (-(row.score or 0.0), int(row.label))):
        if row.score is None or not row.train_time_s or not row.peak_memory_bytes:
            continue
        base = bases.get(row.settings.get(MODEL))
        priced = PriceRow(
            trial=int(row.label),
            score=row.score,
            low=row.low,
            high=row.high,
            train_time_s=row.train_time_s,
            peak_memory_bytes=row.peak_memory_bytes,
            adapter_bytes=row.adapter_bytes,
            tokens_per_s=row.tokens_per_s,
            gain_per_hour=None if base is None else (row.score - base) / row.train_time_s * _HOUR_S,
            is_on_front=True,
        )
        is_on_front = not any(_takes_no_more(better, priced) for better in found)
        found.append(replace(priced, is_on_front=is_on_front))
    return found


def _takes_no_more(one: PriceRow, other: PriceRow) -> bool:
    most = 1 + TOLERANCE
    return (
        one.train_time_s <= most * other.train_time_s
        and one.peak_memory_bytes <= most * other.peak_memory_bytes
    )


def settle_preference(study: optuna.Study, place: Place, spec: SweepSpec) -> None:
    """Choose the trial to use, and store it: with ``prefer: cheap`` the one that takes least of
    those that are not told apart from the best.

    It has an adapter, and is better than the untuned model by validation prompts if the best is.
    It is chosen before the test split is opened, and stays for that best trial: what the test
    split says must not change the choice.
    """
    known, best = study.user_attrs.get(CHOSEN), best_of_all(study)
    if spec.prefer != "cheap" or best is None:
        if known is not None:
            study.set_user_attr(CHOSEN, None)
        return
    is_known = known is not None and known["of"] == best.number and known.get("is_settled")
    if is_known and (n_test_opened(study) or read_test(study)):
        return

    def choose(number: int, *, is_settled: bool) -> None:
        chosen = {"trial": number, "of": best.number, "is_settled": is_settled}
        if study.user_attrs.get(CHOSEN) != chosen:
            study.set_user_attr(CHOSEN, chosen)

    verdict = judge_study(study, place)
    for number in _cheaper(
        study, place, spec, best.number, () if verdict is None else verdict.ties
    ):
        choose(number, is_settled=False)
        if verdict is None or not verdict.ships or trial_to_use(study, place) is not None:
            choose(number, is_settled=True)
            return
    choose(best.number, is_settled=True)


def _cheaper(
    study: optuna.Study, place: Place, spec: SweepSpec, best: int, ties: Sequence[str]
) -> list[int]:
    """The trials of ``ties`` that take less than the best and have an adapter, the least first."""
    trials = study.get_trials(deepcopy=False)
    most = cost_of(spec, trials[best])
    found = []
    for number in (int(label.removeprefix("trial ")) for label in ties):
        if trials[number].params.get(MODEL) != trials[best].params.get(MODEL):
            continue  # ranks of two models are not comparable
        cost, folder = cost_of(spec, trials[number]), place.trial_dir(study.study_name, number)
        if most is None or cost is None or not (folder / ADAPTER_DIR).is_dir():
            continue
        if cost.less_than(most):
            found.append((cost.n_examples, cost.rank, -(trials[number].value or 0.0), number))
    return [number for *_, number in sorted(found)]
