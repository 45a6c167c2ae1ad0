"""Hyperparameter sweeps for LoRA fine-tuning with MLX.

    from hawsweep import load_sweep, run_sweep

    outcome = run_sweep(load_sweep("lr-rank", {"trials": 4}), "lr-rank")
    print(outcome.best_trial)

Each public name is imported at its first use: a command pays only for what it imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hawsweep.errors import HawsweepError
    from hawsweep.results.study_results import StudyResults, open_study
    from hawsweep.running.events import Event
    from hawsweep.running.start import Outcome
    from hawsweep.spec.read import load_sweep
    from hawsweep.spec.sweep import SweepSpec
    from hawsweep.views.terminal.notebook import run_sweep


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
    "Event": "running.events",
    "HawsweepError": "errors",
    "Outcome": "running.start",
    "StudyResults": "results.study_results",
    "SweepSpec": "spec.sweep",
    "load_sweep": "spec.read",
    "open_study": "results.study_results",
    "run_sweep": "views.terminal.notebook",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"hawsweep.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
