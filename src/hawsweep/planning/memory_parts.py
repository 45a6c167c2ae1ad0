"""The memory of a setting by part: of a training step at its peak, and of what comes between."""

from typing import TYPE_CHECKING

from hawsweep.data.batches import padded_width
from hawsweep.machine import backend
from hawsweep.planning.fits import scoring_peak
from hawsweep.planning.peak import Step, evaluation_peak, training_peak
from hawsweep.planning.trial_plan import evaluation_tokens, most_evaluated

if TYPE_CHECKING:
    from hawsweep.planning.sweep_plan import Fit, SweepPlan


def memory_parts(plan: "SweepPlan", fit: "Fit") -> dict[str, int]:
    """Bytes by part, as predicted, without the error band.

    The parts down to ``loss`` add up to ``training``, the peak of a step. ``evaluation`` and
    ``translations`` are peaks of their own, with the weights; ``cache`` is the most that freed
    buffers take beside any of them.
    """
    known, chosen = plan.memory, fit.plan or fit.least
    work = plan.work.cut(fit.train.max_seq_length)
    execution = chosen.execution
    step = work.largest_step(fit.train.batch_size, execution.micro_batch)
    peak = training_peak(known.shape, fit.train, step, execution, known.coefficients)
    width = padded_width(int(plan.work.lengths.max()) - 1)
    most = most_evaluated(plan.spec)
    rows = evaluation_tokens(known, plan.work, execution, plan.arrays_bytes, most) // width
    evaluated = Step(rows, width, rows * int(plan.work.n_targets.max()))
    at_once = execution.tokens_at_once
    return {
        **{part: round(n_bytes) for part, n_bytes in vars(peak).items()},
        "training": peak.total,
        "evaluation": evaluation_peak(known.shape, evaluated, at_once, known.coefficients),
        "translations": scoring_peak(plan.spec, known, plan.work),
        "cache": 0 if known.device == "cpu" else backend.most_cached(peak.total),
    }
