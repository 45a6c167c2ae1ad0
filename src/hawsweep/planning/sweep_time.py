"""The time of a whole sweep: training, evaluations, translations, base, new seeds and test."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hawsweep.data.batches import EVALUATION_COST, validation_size
from hawsweep.data.prompt_file import read_retention
from hawsweep.planning.sweep_plan import SweepPlan, to_plain
from hawsweep.planning.trial_plan import CostModel
from hawsweep.planning.workload import n_held_out
from hawsweep.search.coordinates import most_trials
from hawsweep.search.rungs import expected_ends

# Prompts are read in wide batches, forward only: at a higher rate than training.
_READING_COST = 0.3
# The overhead of a trial: compiling its step, files, the perplexity of the references.
_TRIAL_S = 3.0
# The start: libraries, loading the model and the embedder, tokenizing the data.
_LOADING_S = 30.0
_LOADING_BYTES_S = 5e8
# Ten steps of a model that was never measured, in child processes.
_MEASURING_S = 90.0
# The share of prunable trials that are pruned.
_PRUNED_SHARE = 0.5


@dataclass(frozen=True)
class Timing:
    """A sweep's expected time, in seconds.

    Attributes:
        train_s, evaluations_s, answers_s: Of a trial that is not pruned.
        pruned_s: Of one that is.
        n_pruned: How many are expected to be.
        promotes: Whether pruned ones are those that were not promoted.
        again_s: Of the runs with new seeds.
        prompts_s: Of the prompts that the untuned model is tried with; part of ``base_s``.
    """

    start_s: float
    base_s: float
    train_s: float
    evaluations_s: float
    answers_s: float
    pruned_s: float
    n_trials: int
    n_pruned: int
    n_workers: int
    again_s: float
    test_s: float
    promotes: bool = False
    prompts_s: float = 0.0

    @property
    def trial_s(self) -> float:
        """Of a trial that is not pruned."""
        return self.train_s + self.evaluations_s + self.answers_s

    @property
    def trials_s(self) -> float:
        """Of base and trials. All workers are busy until the end, when some wait for the last."""
        waiting = (self.n_workers - 1) / 2 * self.trial_s
        return (self.base_s + self.n_trials * self.mean_s + waiting) / self.n_workers

    @property
    def mean_s(self) -> float:
        """Of a trial, pruned or not."""
        n_whole = self.n_trials - self.n_pruned
        return (n_whole * self.trial_s + self.n_pruned * self.pruned_s) / self.n_trials

    @property
    def after_s(self) -> float:
        """The time after the start of the last trial: the longest trial, and the test."""
        return self.trial_s + self.test_s

    def n_trials_within(self, seconds: float) -> int:
        """The number of trials that fit the time, with everything around them; unpruned ones unless
        trials are promoted.
        """
        left_s = seconds - self.start_s - self.baselines_s - self.again_s
        each_s = self.mean_s if self.promotes else self.trial_s
        return max(0, int(left_s / each_s * self.n_workers))

    @property
    def baselines_s(self) -> float:
        """The time of base and test."""
        return self.base_s / self.n_workers + self.test_s

    @property
    def total_s(self) -> float:
        """Of all."""
        return self.start_s + self.trials_s + self.again_s + self.test_s


def time_plan(plan: SweepPlan, data_pairs: int | None = None) -> Timing:
    """The time of a planned sweep, from the known facts about its data.

    Args:
        data_pairs: Examples that it was planned for instead of the data.
    """
    longest_answer = float(np.quantile(plan.work.n_targets, 0.98))
    return time_sweep(plan, *n_held_out(plan.spec, data_pairs), longest_answer)


def time_sweep(plan: SweepPlan, n_valid: int, n_test: int, answer_tokens: float) -> Timing:
    """The time of a planned sweep on the machine of the plan.

    Args:
        n_valid: Validation records there are.
        n_test: Test records there are.
        answer_tokens: Of a long reference: a batch of answers ends with its longest.
    """
    spec, known = plan.spec, plan.memory
    fits = (plan.smallest, plan.largest)
    train_s = statistics.mean(each.seconds for each in fits)
    iters = statistics.mean(each.train.iters for each in fits)
    seen_s = EVALUATION_COST * statistics.mean(  # an example, forward only
        plan.work.mean_tokens / each.tokens_per_s if each.tokens_per_s else 0.0 for each in fits
    )
    evaluation_s = seen_s * _n_evaluated(plan, n_valid)
    evaluations_s = math.ceil(iters / spec.train.steps_per_eval) * evaluation_s
    references_s = seen_s * min(spec.scoring.max_examples, n_valid)
    untuned_s, prompts_s, tuned_s, test_s = _answering(plan, n_valid, n_test, answer_tokens)
    scored_s = _TRIAL_S + references_s + tuned_s
    n_pruned, pruned_at = _pruning(plan, iters)
    loading = _LOADING_S + known.shape.weight_bytes() / _LOADING_BYTES_S
    return Timing(
        start_s=loading + (0 if known.is_calibrated else _MEASURING_S),
        base_s=evaluation_s + references_s + untuned_s + prompts_s,
        train_s=train_s,
        evaluations_s=evaluations_s,
        answers_s=scored_s,
        pruned_s=pruned_at / iters * (train_s + evaluations_s),
        n_trials=most_trials(spec),
        n_pruned=n_pruned,
        n_workers=plan.n_workers,
        again_s=math.ceil(plan.n_again / plan.n_workers) * (train_s + evaluations_s + scored_s),
        test_s=test_s,
        promotes=spec.pruning.name == "promote",
        prompts_s=prompts_s,
    )


def plans_to_plain(timed: Sequence[tuple[SweepPlan, Timing | None]]) -> dict[str, Any]:
    """Plans, with times where they fit, as plain values; of several models under ``models``."""
    first, *others = (
        {
            **to_plain(plan),
            "seconds": timing and round(timing.total_s),
            "trial_seconds": timing and round(timing.trial_s),
            "prompts": plan.spec.scoring.prompt.n_tried,
            "prompts_seconds": timing and round(timing.prompts_s),
        }
        for plan, timing in timed
    )
    return {"models": [first, *others]} if others else first


def _n_evaluated(plan: SweepPlan, n_valid: int) -> int:
    asked = plan.spec.validation.max_examples
    if asked != "auto":
        return min(asked, n_valid)
    if n_valid == 0:
        return 0
    train, lengths = plan.spec.train, plan.work.lengths
    like_train = np.resize(lengths, n_valid)
    return validation_size(lengths, like_train, train.batch_size, train.steps_per_eval)


def _answering(
    plan: SweepPlan, n_valid: int, n_test: int, answer_tokens: float
) -> tuple[float, float, float, float]:
    """The time of answering: the base on validation prompts, with its other prompts, a trial, and
    on the test split and on the questions of retention base, best prompt and trial.
    """
    spec = plan.spec.scoring
    prompt = max(1.0, plan.work.mean_tokens - float(plan.work.n_targets.mean()))
    answered = min(answer_tokens, spec.max_tokens)

    def base_s(n_prompts: int, n_examples: int = 0) -> float:
        # The untuned model seldom ends its answers.
        shown = prompt + n_examples * plan.work.mean_tokens
        return generation_s(plan.memory, n_prompts, spec.batch_size, shown, spec.max_tokens)

    def trial_s(n_prompts: int) -> float:
        return generation_s(plan.memory, n_prompts, spec.batch_size, prompt, answered)

    n_prompts, n_tested = min(spec.max_examples, n_valid), min(2 * spec.max_examples, n_test)
    asked = spec.prompt
    tried = [n for n in asked.examples for _ in range(len(asked.instructions) + bool(n))]
    tested_s = base_s(n_tested) + trial_s(n_tested)
    tested_s += base_s(n_tested, max(tried)) if tried else 0.0
    tried_s = sum(base_s(n_prompts, n) for n in tried)
    if plan.spec.retention is not None:
        n_asked = len(read_retention(plan.spec.retention))
        tested_s += 2 * base_s(n_asked) + (base_s(n_asked, max(tried)) if tried else 0.0)
    return base_s(n_prompts), tried_s, trial_s(n_prompts), tested_s


def _pruning(plan: SweepPlan, iters: float) -> tuple[int, float]:
    """The expected number of pruned trials, and the iterations of each."""
    asked, steps = plan.spec.pruning, plan.spec.train.steps_per_eval
    if asked.name == "promote":
        train = plan.spec.train.model_copy(update={"iters": round(iters)})
        *early, _ = expected_ends(train, most_trials(plan.spec)).items()
        n_pruned = sum(n for _, n in early)
        return n_pruned, sum(at * n for at, n in early) / n_pruned if n_pruned else iters
    if asked.name == "none" or steps >= iters:
        return 0, iters
    first = max(1, math.ceil(asked.n_warmup_steps / steps)) * steps
    if first >= iters:
        return 0, iters
    may_be = max(0, most_trials(plan.spec) - max(asked.n_startup_trials, asked.n_min_trials))
    share = asked.percentile / 100 if asked.name == "percentile" else 1 - _PRUNED_SHARE
    return int(may_be * (1 - share)), min(iters, first + steps / 2)


def generation_s(
    known: CostModel, n_prompts: int, rows: int, prompt_tokens: float, answer_tokens: float
) -> float:
    """The time of answering prompts, ``rows`` at a time."""
    if not n_prompts:
        return 0.0
    shape, speed = known.shape, known.speed
    weights = shape.block_products * shape.n_layers
    flops = 2 * (weights + shape.hidden_size * shape.vocabulary)
    rows = min(rows, n_prompts)
    reading = _READING_COST * n_prompts * prompt_tokens * 2 * weights / speed.flops
    a_token = max(rows * flops / speed.flops, shape.weight_bytes() / speed.bandwidth)
    return float(
        reading + math.ceil(n_prompts / rows) * answer_tokens * (a_token + speed.step_s / 2)
    )
