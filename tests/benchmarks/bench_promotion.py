"""What promotion saves and what it loses, beside Optuna's median pruner, on learning curves.

python tests/benchmarks/bench_promotion.py [--curves FILE ...] [--studies N] [--json]

A made curve is E(rate, rank) + D * (g(rate * t) - g(rate * T)), g(u) = (1 + u / u0) ** -p: it ends
at E, and a lower rate comes down later, the more so the larger D is; evaluations have noise of
.05 %. Families differ in D, so in how well the order at a rung agrees with the end; that is printed
as Spearman's correlation. A file holds recorded runs: see record_curves.py.

Each study begins 20 settings by chance and trains them with ``next_promoted``, as one worker does;
or with the median pruner; or whole. With ``--whole-search`` the settings come from hawsweep's
sampler and from 0.1's, and the regret is by steps. With ``--beliefs`` what hawsweep says it knows
is compared with what is true: among statements of a chance, the share that holds.
"""

import argparse
import json
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from bench_search import STRATEGIES
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import spearmanr

from hawsweep.search.belief import Belief, find_belief
from hawsweep.search.distributions import distributions, first_settings
from hawsweep.search.promotion import next_promoted
from hawsweep.search.rungs import rungs
from hawsweep.search.sampler import propose
from hawsweep.spec.read import check_sweep
from hawsweep.spec.sweep import SweepSpec

N_SETTINGS = 20
N_EVALUATIONS = 16
ITERS = 1600
_NOISE = 0.0005
_RATE, _RANK = "learning_rate", "lora_parameters.rank"
_RANKS = (4, 8, 16, 32)
_LLAMA = {"model_type": "llama", "hidden_size": 2000}  # for which the suggested rate is 5e-4

Settings = Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """Something to search: a curve for each setting, and what a setting is worth in the end."""

    spec: SweepSpec
    loss: Callable[[Settings, int], float]
    settings: tuple[Settings, ...] = ()

    @property
    def steps(self) -> list[int]:
        """The iterations of the evaluations."""
        every, iters = self.spec.train.steps_per_eval, self.spec.train.iters
        return [*range(every, iters, every), iters]

    def end(self, settings: Settings) -> float:
        """The lowest loss of the whole run, without noise."""
        return min(self.loss(settings, step) for step in self.steps)


def spec_of(iters: int, steps_per_eval: int, low: float, high: float) -> SweepSpec:
    """A sweep over rate and rank."""
    search = {_RATE: {"low": low, "high": high, "log": True}, _RANK: {"choices": list(_RANKS)}}
    train = {"iters": iters, "steps_per_eval": steps_per_eval}
    content = {"model": "m", "data": "phrasebook", "search": search, "train": train}
    return check_sweep({**content, "trials": N_SETTINGS}, "a sweep")


def made_problem(delay: float, seed: int) -> Problem:
    """A surface with a best rate by chance, and curves of which low rates come down later.

    Args:
        delay: D, as a share of the loss.
    """
    random = np.random.default_rng(seed)
    best = 10 ** random.uniform(-4.0, -3.0)
    steep, of_rank = random.uniform(0.02, 0.05), random.uniform(0.003, 0.012)
    power, scale = random.uniform(0.4, 0.9), 0.03 * ITERS * best

    def end(settings: Settings) -> float:
        off = math.log10(settings[_RATE] / best)
        side = steep * (2.0 if off > 0 else 1.0)
        return 1.0 + side * off * off + of_rank * math.log2(32 / settings[_RANK]) / 3

    def fall(u: float) -> float:
        return (1 + u / scale) ** -power

    def loss(settings: Settings, step: int) -> float:
        rate = settings[_RATE]
        return end(settings) + delay * (fall(rate * step) - fall(rate * ITERS))

    return Problem(spec_of(ITERS, ITERS // N_EVALUATIONS, 1e-5, 1e-2), loss)


FAMILIES = {"agreeing": 0.1, "crossing": 0.17, "crossing more": 0.25, "far worse": 0.8}


def recorded_problem(path: Path) -> Problem:
    """Recorded runs: their settings are all that there are."""
    with np.load(path) as known:
        settings = list(zip(known["rate"].tolist(), known["rank"].tolist(), strict=True))
        steps, losses = known["iteration"].tolist(), known["val_loss"].tolist()
    curves = {
        each: dict(zip(steps, of, strict=True)) for each, of in zip(settings, losses, strict=True)
    }
    rates, evaluated = [rate for rate, _ in settings], [step for step in steps if step]
    spec = spec_of(evaluated[-1], evaluated[0], min(rates), max(rates))

    def loss(settings: Settings, step: int) -> float:
        of_run = curves[settings[_RATE], int(settings[_RANK])].get(step, math.inf)
        return of_run if math.isfinite(of_run) else math.inf  # it diverged

    return Problem(spec, loss, tuple({_RATE: rate, _RANK: rank} for rate, rank in settings))


class Study:
    """Trials in memory, trained one interval after another, and the steps that took."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.trials, self.n_steps = problem, list[FrozenTrial](), 0
        self._noise = np.random.default_rng(seed)
        self._space = distributions(problem.spec.search)
        self.regrets: list[tuple[int, float]] = []  # steps so far, true loss of the best finished

    def begin(self, settings: Settings) -> FrozenTrial:
        """A new trial."""
        trial = create_trial(
            state=TrialState.RUNNING, params=dict(settings), distributions=self._space
        )
        trial.number = len(self.trials)
        self.trials.append(trial)
        return trial

    def advance(self, trial: FrozenTrial) -> int:
        """Train to the next evaluation; give its iteration."""
        step = next(s for s in self.problem.steps if s > (trial.last_step or 0))
        loss = self.problem.loss(trial.params, step)
        trial.intermediate_values[step] = -loss * math.exp(self._noise.normal(0, _NOISE))
        self.n_steps += step - max((s for s in self.problem.steps if s < step), default=0)
        return step

    def finish(self, trial: FrozenTrial) -> None:
        """It was trained whole."""
        trial.state = TrialState.COMPLETE
        trial.value = max(trial.intermediate_values.values())
        best = max((t for t in self.trials if t.value is not None), key=lambda t: t.value)
        self.regrets.append((self.n_steps, self.problem.end(best.params)))

    @property
    def result(self) -> float:
        """The true loss of the trial that looks best."""
        return self.regrets[-1][1]


def promote(study: Study, settings: Callable[[int], Settings | None], n_trials: int) -> None:
    """Train as one worker of a sweep does."""
    spec, iters = study.problem.spec, study.problem.steps[-1]
    at_rungs = set(rungs(spec.train).values())
    exhausted = False
    while True:
        may_begin = len(study.trials) < n_trials and not exhausted
        number = next_promoted(spec, study.trials, may_begin=may_begin)
        if number is None:
            proposed = settings(len(study.trials)) if may_begin else None
            if proposed is None:
                if not may_begin:
                    return
                exhausted = True
                continue
            trial = study.begin(proposed)
        else:
            trial = study.trials[number]
        trial.state = TrialState.RUNNING
        step = 0
        while step < iters:
            step = study.advance(trial)
            if step in at_rungs:
                trial.state = TrialState.WAITING
                break
        else:
            study.finish(trial)


def prune(study: Study, settings: Callable[[int], Settings | None], n_trials: int) -> None:
    """Train each until the median pruner of 0.1's default ends it."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_min_trials=2)
    mirror = optuna.create_study(direction="maximize", pruner=pruner)
    for number in range(n_trials):
        trial = study.begin(settings(number) or {})
        asked = mirror.ask()
        for _ in study.problem.steps:
            step = study.advance(trial)
            asked.report(trial.intermediate_values[step], step)
            if step < study.problem.steps[-1] and asked.should_prune():
                trial.state = TrialState.PRUNED
                mirror.tell(asked, state=TrialState.PRUNED)
                break
        else:
            study.finish(trial)
            mirror.tell(asked, trial.value)


def whole(study: Study, settings: Callable[[int], Settings | None], n_trials: int) -> None:
    """Train each whole."""
    for number in range(n_trials):
        trial = study.begin(settings(number) or {})
        for _ in study.problem.steps:
            study.advance(trial)
        study.finish(trial)


RULES = {"whole": whole, "median": prune, "promote": promote}


def drawn(problem: Problem, seed: int) -> Callable[[int], Settings]:
    """Settings by chance; of recorded ones, a choice of them."""
    random = np.random.default_rng([seed, 1])
    if problem.settings:
        n_settings = min(N_SETTINGS, len(problem.settings))
        chosen = random.permutation(len(problem.settings))[:n_settings]
        return lambda number: problem.settings[chosen[number]]
    search = problem.spec.search[_RATE]
    low, high = math.log(search.low), math.log(search.high)
    rates = np.exp(random.uniform(low, high, N_SETTINGS))
    ranks = random.choice(_RANKS, N_SETTINGS)
    return lambda number: {_RATE: float(rates[number]), _RANK: int(ranks[number])}


def agreement(problem: Problem, settings: Sequence[Settings]) -> list[float]:
    """Spearman's correlation of the losses at each rung with the end."""
    ends = [problem.end(each) for each in settings]
    at = rungs(problem.spec.train).values()
    return [
        float(spearmanr([problem.loss(each, step) for each in settings], ends).statistic)
        for step in at
    ]


def compare(problems: Sequence[Problem]) -> dict[str, dict[str, float]]:
    """Steps saved, studies whose result is more than .1 % above the best begun, mean regret."""
    found: dict[str, dict[str, float]] = {}
    for name, rule in RULES.items():
        saved, regrets, n_whole = [], [], []
        for seed, problem in enumerate(problems):
            settings = drawn(problem, seed)
            n_trials = min(N_SETTINGS, len(problem.settings) or N_SETTINGS)
            study = Study(problem, seed)
            rule(study, settings, n_trials)
            best = min(problem.end(settings(number)) for number in range(n_trials))
            saved.append(1 - study.n_steps / (n_trials * problem.steps[-1]))
            regrets.append(study.result / best - 1)
            n_whole.append(sum(t.state == TrialState.COMPLETE for t in study.trials))
        found[name] = {
            "steps_saved": statistics.mean(saved),
            "behind_by_a_thousandth": statistics.mean(r > 0.001 for r in regrets),
            "mean_regret_percent": 100 * statistics.mean(regrets),
            "trained_whole": statistics.mean(n_whole),
        }
    return found


def searched(problem: Problem, strategy: str, seed: int, n_runs: int) -> list[float]:
    """The regret, in percent, after as many steps as each number of whole runs."""
    study, iters = Study(problem, seed), problem.steps[-1]
    if strategy == "0.1":
        first, sampler = STRATEGIES["0.1"]
        mirror = optuna.create_study(direction="maximize")
        for each in first(problem.spec, _LLAMA):
            mirror.enqueue_trial(dict(each))
        asked: list[optuna.Trial] = []

        def tpe(number: int) -> Settings:
            for known, trial in zip(asked, study.trials, strict=True):
                if mirror.trials[known.number].state == TrialState.RUNNING:
                    state = trial.state
                    for step, value in trial.intermediate_values.items():
                        known.report(value, step)
                    mirror.tell(known, trial.value, state=state)
            mirror.sampler = sampler(problem.spec, seed * 1000 + number)
            asked.append(mirror.ask(distributions(problem.spec.search)))
            return asked[-1].params

        prune(study, tpe, 3 * n_runs)
    else:
        first_ones = first_settings(problem.spec, _LLAMA)

        def gp(number: int) -> Settings | None:
            if number < len(first_ones):
                return {key: float(value) for key, value in first_ones[number].items()}
            return propose(problem.spec, study.trials, seed * 1000 + number)

        promote(study, gp, math.ceil(2.5 * n_runs))
    rates = problem.spec.search[_RATE]
    spaced = np.geomspace(rates.low, rates.high, 400)
    best = min(problem.end({_RATE: rate, _RANK: rank}) for rate in spaced for rank in _RANKS)
    nothing = [1.05 * best]  # before the first is trained whole
    lowest = [
        min([loss for at, loss in study.regrets if at <= n * iters] or nothing)
        for n in range(1, n_runs + 1)
    ]
    return [100 * (loss / best - 1) for loss in lowest]


BEGUN = (8, 12, 16)  # settings, when beliefs are asked for
_NEXT = 4
_BINS = ((0.5, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.01))


def beliefs(problem: Problem, seed: int) -> list[tuple[str, float, bool]]:
    """Statements of one study: of what, the chance that was said, and whether it is true."""
    study, n_begun = Study(problem, seed), max(BEGUN) + _NEXT
    first_ones = first_settings(problem.spec, _LLAMA)
    said: dict[int, Belief] = {}

    def gp(number: int) -> Settings | None:
        if number in BEGUN:
            belief = find_belief(problem.spec, study.trials, _NEXT)
            said.update({} if belief is None else {number: belief})
        if number < len(first_ones):
            return {key: float(value) for key, value in first_ones[number].items()}
        return propose(problem.spec, study.trials, seed * 1000 + number)

    promote(study, gp, n_begun)
    rates = problem.spec.search[_RATE]
    spaced = np.geomspace(rates.low, rates.high, 400)
    ends = {(r, k): problem.end({_RATE: r, _RANK: k}) for r in spaced for k in _RANKS}
    best_rate, best_rank = min(ends, key=lambda each: ends[each])
    reached = [problem.end(trial.params) for trial in study.trials]
    found: list[tuple[str, float, bool]] = []
    for number, belief in said.items():
        rate, rank = belief.keys
        assert rate.low is not None
        assert rate.high is not None
        assert rank.chance is not None
        found.append(("rate in its range", 0.95, rate.low <= best_rate <= rate.high))
        found.append(("rank", rank.chance, rank.value == best_rank))
        begun, after = min(reached[:number]), min(reached[number : number + _NEXT])
        found.append(("leader", belief.leader_stays, reached[belief.leader] <= begun))
        gain, slack = max(0.0, 1 - after / begun), 1e-4
        is_within = belief.gain_low - slack <= gain <= belief.gain_high + slack
        found.append(("gain in its range", 0.9, is_within))
    return found


def calibration(problems: Sequence[Problem]) -> list[dict[str, object]]:
    """For each kind of statement and chance: how many, the mean chance, the share that is true."""
    found = [each for seed, p in enumerate(problems) for each in beliefs(p, seed)]
    rows: list[dict[str, object]] = []
    for kind in dict.fromkeys(kind for kind, *_ in found):
        for low, high in _BINS:
            of_kind = [(chance, holds) for k, chance, holds in found if k == kind]
            some = [each for each in of_kind if low <= each[0] < high]
            if some:
                chances, hold = zip(*some, strict=True)
                mean, share = float(np.mean(chances)), float(np.mean(hold))
                rows.append({"of": kind, "n": len(some), "said": mean, "true": share})
    return rows


def main() -> None:
    """Print a table for each family and each file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--curves", type=Path, nargs="*", default=[])
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--whole-search", action="store_true")
    parser.add_argument("--beliefs", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    problems = {
        name: [made_problem(delay, seed) for seed in range(asked.studies)]
        for name, delay in FAMILIES.items()
    }
    problems |= {str(path.stem): [recorded_problem(path)] * asked.studies for path in asked.curves}
    table: dict[str, object] = {}
    for name, each in problems.items():
        if each[0].settings and (asked.whole_search or asked.beliefs):
            continue
        if asked.beliefs:
            table[name] = rows = calibration(each)
            if not asked.json:
                print(f"{name}: what was said, and how often it was true")
                for row in rows:
                    print(f"  {row['of']:18} {row['said']:.2f} {row['true']:.2f}  n {row['n']}")
            continue
        if asked.whole_search:
            by = {
                strategy: np.mean(
                    [searched(p, strategy, seed, 10) for seed, p in enumerate(each)], axis=0
                ).tolist()
                for strategy in ("0.1", "today's")
            }
            table[name] = by
            if not asked.json:
                print(f"{name}: % above the best after steps of 1 to 10 whole runs")
                for strategy, values in by.items():
                    print(f"  {strategy:8}", *(f"{value:6.2f}" for value in values), flush=True)
            continue
        some = [
            agreement(p, [drawn(p, seed)(n) for n in range(min(N_SETTINGS, len(p.settings) or 99))])
            for seed, p in enumerate(each[:20])
        ]
        at = np.mean(some, axis=0).tolist()
        found = compare(each)
        table[name] = {"agreement_at_rungs": at, **found}
        if not asked.json:
            print(f"{name}: order at the rungs agrees with the end by", *(f"{v:.2f}" for v in at))
            for rule, of in found.items():
                print(
                    f"  {rule:8} {of['steps_saved']:4.0%} of steps saved,"
                    f" {of['behind_by_a_thousandth']:5.1%} more than .1 % behind,"
                    f" mean regret {of['mean_regret_percent']:.3f} %,"
                    f" {of['trained_whole']:.1f} trained whole",
                    flush=True,
                )
    if asked.json:
        print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
