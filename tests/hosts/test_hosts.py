"""Sweeps on several machines: who trains, and what is left after faults."""

import os
import signal
import time

from hawsweep.study.attributes import WORKER

import pytest
from optuna.trial import TrialState

HOSTS = "host-1,host-2"


def hosts_of(lab):
    """The machine that ended each trial, by its name there."""
    return [trial.user_attrs.get(WORKER, {}).get("host") for trial in lab.trials()]


def end_well(run, lab, n_trials):
    """A sweep's end, and what must be true then: nothing lost, nothing running, counts exact."""
    assert run.wait() == 0, run.events[-5:]
    lab.check(n_trials)
    done = [t for t in lab.trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(done) == n_trials
    for trial in done:
        if trial.state == TrialState.COMPLETE:
            folder = lab.studies / "tiny" / "trials" / f"{trial.number:04d}"
            assert (folder / "adapters" / "adapters.safetensors").is_file(), trial.number


def test_a_sweep_runs_on_all_hosts_of_one_name(room):
    """Machines that were copied have the same name; ssh knows them by others."""
    for name in ("host-1", "host-2"):
        room.machine(name, hostname="studio")
    lab = room.lab(trials=8)
    run = room.start(lab, HOSTS)
    end_well(run, lab, 8)
    assert {"host-1", "host-2"} <= {each["host"] for each in run.of("trial_end")}
    for host in ("host-1", "host-2"):
        (joined,) = run.of("host", host)
        assert (joined["state"], joined["text"]) == ("joined", "joined with 1 worker")
    # Each trial's events have the host that had it.
    for ended in run.of("trial_end"):
        (begun,) = [each for each in run.of("trial_start") if each["number"] == ended["number"]]
        assert (begun["host"], begun["worker"]) == (ended["host"], ended["worker"])
