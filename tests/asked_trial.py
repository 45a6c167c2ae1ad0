"""The next trial of a study, as its supervisor asks for it."""

from hawsweep.machine.processes import identity
from hawsweep.study.optuna_door import trial_to_run
from hawsweep.study.queue import ask


def next_trial(study, space, folder, worker=None, n_trials=0):
    """Begin it for this process or another, by the study's own sampler; ``folder`` has the lock."""
    number = ask(study, lambda _: study.sampler, space, folder, worker or identity(), n_trials)
    return trial_to_run(study, number)
