"""Hyperparameter sweeps for LoRA fine-tuning with MLX.

    from hawsweep import load_sweep, run_sweep

    outcome = run_sweep(load_sweep("lr-rank", {"trials": 4}), "lr-rank")
    print(outcome.best_trial)

What this module gives is imported when it is first asked for: nothing here costs a command that
does not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hawsweep.errors import HawsweepError
    from hawsweep.results import StudyResults, open_study
    from hawsweep.spec import SweepSpec
    from hawsweep.starting import Outcome, run_sweep
    from hawsweep.supervisor import Event
    from hawsweep.sweepfile import load_sweep

__version__ = "0.1.0"
__all__ = [
    "Event",
    "HawsweepError",
    "Outcome",
    "StudyResults",
    "SweepSpec",
    "load_sweep",
    "open_study",
    "run_sweep",
]

_MODULES = {
    "Event": "supervisor",
    "HawsweepError": "errors",
    "Outcome": "starting",
    "StudyResults": "results",
    "SweepSpec": "spec",
    "load_sweep": "sweepfile",
    "open_study": "results",
    "run_sweep": "starting",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"hawsweep.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
