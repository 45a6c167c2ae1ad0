"""The number of a sweep's workers, and the memory of each."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from hawsweep.errors import MemoryBudgetError
from hawsweep.machine import memory
from hawsweep.planning import calibration
from hawsweep.planning.fits import check_fits
from hawsweep.planning.peak import arrays_budget
from hawsweep.planning.sweep_plan import share, worker_bytes
from hawsweep.planning.trial_plan import CostModel
from hawsweep.planning.workload import Workload, workload
from hawsweep.search.coordinates import most_trials
from hawsweep.spec.sweep import SweepSpec
from hawsweep.text import SayProgress


class LeftOut(NamedTuple):
    """Why a model does not fit into memory, and by how much."""

    reason: str
    short_gb: float


@dataclass(frozen=True)
class WorkerShares:
    """The workers of a sweep.

    Attributes:
        bytes_each: The budget of each; None if memory cannot be predicted.
        left_out: Models that do not fit, if others do.
        known: The cost of each model; empty if memory cannot be predicted.
    """

    n_workers: int
    bytes_each: float | None
    left_out: Mapping[str, LeftOut]
    known: Mapping[str, CostModel]


def share_memory(spec: SweepSpec, paths: Mapping[str, Path], say: SayProgress) -> WorkerShares:
    """The number of workers and the bytes of each.

    Args:
        paths: The folders of the sweep's models.

    Raises:
        MemoryBudgetError: No model fits.
    """
    machine = memory.this_machine()
    budget = memory.find_budget(spec.memory.budget, spec.memory.reserve, machine=machine)
    of_each = {model: spec.of_model(model) for model in paths}
    works = {model: workload(its) for model, its in of_each.items()}
    found: dict[str, CostModel | None] = {}
    left_out: dict[str, LeftOut] = {}
    for model, its in of_each.items():
        with _leaving_out(spec, model, left_out):
            found[model] = _measured(its, paths[model], works[model], budget, say)
    known = {model: each for model, each in found.items() if each is not None}
    if len(known) < len(found):
        say("the memory of this architecture is not known: trials run as the sweep says")
        n_workers = 1 if spec.workers == "auto" else min(spec.workers, most_trials(spec))
        return WorkerShares(n_workers, None, left_out, {})
    shares = [share(of_each[model], each, works[model], budget)[0] for model, each in known.items()]
    n_workers = min(shares, default=1)
    bytes_each = worker_bytes(budget, n_workers)
    for model, each in known.items():
        with _leaving_out(spec, model, left_out):
            arrays = arrays_budget(bytes_each, each.coefficients)
            check_fits(of_each[model], each, works[model], arrays)
    if len(left_out) == len(paths):
        reasons = [f"{model}: {each.reason}" for model, each in left_out.items()]
        raise MemoryBudgetError("No model of this sweep fits into memory:", lines=reasons)
    each_of = f"each of {n_workers} workers" if n_workers > 1 else "one worker"
    say(f"memory: {budget.how}; {bytes_each / 1e9:.1f} GB for {each_of}")
    return WorkerShares(n_workers, bytes_each, left_out, known)


@contextmanager
def _leaving_out(spec: SweepSpec, model: str, left_out: dict[str, LeftOut]) -> Iterator[None]:
    """Note that one of several models does not fit; for a single model the error is raised."""
    try:
        yield
    except MemoryBudgetError as fault:
        if not spec.searches_models:
            raise
        left_out[model] = LeftOut(str(fault), fault.short_bytes / 1e9)


def _measured(
    spec: SweepSpec, model_path: Path, work: Workload, budget: memory.Budget, say: SayProgress
) -> CostModel | None:
    """A model's memory model here, measured now if it never was; None if memory cannot be
    predicted.
    """
    known = calibration.cost_model(model_path)
    if known is not None:
        exact = replace(known, coefficients=replace(known.coefficients, error=0.0))
        whole = arrays_budget(worker_bytes(budget, 1), known.coefficients)
        check_fits(spec, exact, work, whole)
    return calibration.ensure_calibrated(model_path, known, budget.total_bytes, say)
