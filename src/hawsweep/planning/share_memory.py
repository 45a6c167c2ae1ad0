"""The number of a sweep's workers, and the memory of each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hawsweep.errors import MemoryBudgetError
from hawsweep.machine import memory
from hawsweep.planning import calibration
from hawsweep.planning.disk_space import check_space
from hawsweep.planning.fits import check_fits
from hawsweep.planning.peak import arrays_budget
from hawsweep.planning.sweep_plan import share, worker_bytes
from hawsweep.planning.trial_plan import MemoryModel
from hawsweep.planning.workload import Workload, workload
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.place import Place

Progress = Callable[[str], None]
# Models that do not fit into memory: why, and by how many GB.
LeftOut = dict[str, tuple[str, float]]


def share_memory(
    spec: SweepSpec, paths: Mapping[str, Path], place: Place, preparing: Progress
) -> tuple[int, float | None, LeftOut]:
    """The number of workers and the bytes of each, None if memory cannot be predicted; and the
    models that do not fit.
    """
    machine = memory.this_machine()
    budget = memory.find_budget(spec.memory.budget, spec.memory.reserve, machine=machine)
    of_each = {model: spec.of_model(model) for model in paths}
    works = {model: workload(its) for model, its in of_each.items()}
    known: dict[str, MemoryModel | None] = {}
    left_out: LeftOut = {}
    for model, its in of_each.items():
        with _leaving_out(spec, model, left_out):
            known[model] = _measured(its, paths[model], works[model], budget, preparing)
    certain = {model: each for model, each in known.items() if each is not None}
    if len(certain) < len(known):
        preparing("the memory of this architecture is not known: trials run as the sweep says")
        return 1 if spec.workers == "auto" else min(spec.workers, spec.trials), None, left_out
    shares = [
        share(of_each[model], found, works[model], budget)[0] for model, found in certain.items()
    ]
    n_workers = min(shares, default=1)
    each = worker_bytes(budget, n_workers)
    for model, found in certain.items():
        check_space(of_each[model], found, place, n_workers)
        with _leaving_out(spec, model, left_out):
            arrays = arrays_budget(each, found.coefficients)
            check_fits(of_each[model], found, works[model], arrays)
    if len(left_out) == len(paths):
        reasons = "\n".join(f"  {model}: {reason}" for model, (reason, _) in left_out.items())
        raise MemoryBudgetError(f"No model of this sweep fits into memory:\n{reasons}")
    preparing(f"memory: {budget.how}; {each / 1e9:.1f} GB for each of {n_workers} workers")
    return n_workers, each, left_out


@contextmanager
def _leaving_out(spec: SweepSpec, model: str, left_out: LeftOut) -> Iterator[None]:
    """Note that one of several models does not fit; for a single model the error is raised."""
    try:
        yield
    except MemoryBudgetError as fault:
        if not spec.searches_models:
            raise
        left_out[model] = str(fault), fault.short_bytes / 1e9


def _measured(
    spec: SweepSpec, model_path: Path, work: Workload, budget: memory.Budget, preparing: Progress
) -> MemoryModel | None:
    """A model's memory model here, measured now if it never was; None if memory cannot be
    predicted.
    """
    known = calibration.memory_model(model_path)
    if known is not None:
        exact = replace(known, coefficients=replace(known.coefficients, error=0.0))
        whole = arrays_budget(worker_bytes(budget, 1), known.coefficients)
        check_fits(spec, exact, work, whole)
    return calibration.ensure_calibrated(model_path, known, budget.total_bytes, preparing)
