"""Machines that share a database and a store, each with a folder of its own: trials begun on one go
on on another, and a third one exports the best.
"""

import itertools
import json

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState
from tiny_sweep import tiny_sweep

from hawsweep import open_study
from hawsweep.cli import main
from hawsweep.running.start import join_sweep, run_sweep
from hawsweep.spec.read import load_sweep
from hawsweep.study.place import Place
from hawsweep.study.trials import state_of

ITERS = 40  # with a rung at 20
ADAPTER = "adapters/adapters.safetensors"
SAME = (ADAPTER, "adapters/adapter_config.json", "valid_losses.npy", "samples.jsonl")


class Machine:
    """A machine's folder of studies."""

    def __init__(self, folder, name):
        self.place = Place(folder / name, f"sqlite:///{folder}/shared.db")
        self.options = [f"--studies-dir={self.place.studies_dir}"]
        self.options += [f"--storage={self.place.storage_url}"]
        self.events = []

    def start(self, spec, listen=lambda _: None):
        def told(event):
            self.events.append(event)
            listen(event)

        storage = self.place.storage_url
        return run_sweep(
            spec, "tiny", studies_dir=self.place.studies_dir, storage=storage, on_event=told
        )

    def join(self):
        return join_sweep("tiny", self.place, self.events.append, 1)

    def file(self, name, number=0):
        return self.place.trial_dir("tiny", number) / name

    def evaluated(self):
        """The iterations at which each trial was evaluated here."""
        found, number = {}, None
        for event in self.events:
            if event.kind == "trial_start":
                number = event.values["number"]
            elif event.kind == "eval":
                found.setdefault(number, []).append(event.values["iteration"])
        return found

    def command(self, *words):
        done = CliRunner().invoke(main, [*words, *self.options])
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done


def sweep_of(tiny_model_dir, chat_data_dir, **changes):
    sweep = tiny_sweep(tiny_model_dir, chat_data_dir)
    sweep["train"]["iters"] = ITERS
    return load_sweep({**sweep, **changes})


def alone(rates):
    return {
        "search": {"learning_rate": {"choices": rates}},
        "enqueue": [{"learning_rate": rate} for rate in rates],
        "trials": len(rates),
    }


@pytest.fixture(scope="module")
def machines(tmp_path_factory, tiny_model_dir, chat_data_dir):
    """Of trials begun on A the first paused at a rung, and the second was stopped. Both went on on
    B, and A tested the best. C has nothing yet.
    """
    folder = tmp_path_factory.mktemp("machines")
    (folder / "store").mkdir()
    asked = {**alone([1e-2, 1e-3]), "artifacts": str(folder / "store")}
    asked["pruning"] = {"name": "promote"}
    spec = sweep_of(tiny_model_dir, chat_data_dir, **asked)
    found = {name: Machine(folder, name) for name in "ABC"}

    def stop(event):
        if event.kind == "eval" and found["A"].evaluated().keys() == {0, 1}:
            raise LookupError("stopped")

    with pytest.raises(LookupError, match="stopped"):
        found["A"].start(spec, stop)
    study = open_study("tiny", studies_dir=folder / "A", storage=found["A"].place.storage_url)
    assert [state_of(trial) for trial in study.study.get_trials()] == ["paused", "paused"]
    found["B"].join()
    found["begun"] = found["A"].evaluated()
    found["A"].events.clear()
    found["A"].start(spec)
    return found


@pytest.fixture(scope="module")
def never_paused(tmp_path_factory, tiny_model_dir, chat_data_dir):
    machine = Machine(tmp_path_factory.mktemp("alone"), "alone")
    machine.start(sweep_of(tiny_model_dir, chat_data_dir, **alone([1e-2])))
    return machine


def test_a_trial_goes_on_on_another_machine_as_if_it_had_never_paused(machines, never_paused):
    begun, went_on = machines["begun"], machines["B"].evaluated()
    for number in (0, 1):  # neither began anew
        assert min(went_on[number]) > max(begun[number])
    assert max(went_on[0]) == ITERS
    for name in SAME:
        there = machines["B"].file(name).read_bytes()
        assert there == never_paused.file(name).read_bytes(), name
    rows = machines["B"].file("metrics.jsonl").read_text().splitlines()
    losses = [json.loads(row).get("val_loss") for row in rows]
    alone = never_paused.file("metrics.jsonl").read_text().splitlines()
    assert losses == [json.loads(row).get("val_loss") for row in alone]


def test_a_trial_of_another_machine_is_tested(machines):
    kinds = [event.kind for event in machines["A"].events]
    assert "test_end" in kinds
    assert "trial_start" not in kinds
    for name, number in itertools.product(SAME, (0, 1)):
        files = [machines[each].file(name, number).read_bytes() for each in "AB"]
        assert files[0] == files[1], (name, number)
    results = open_study(
        "tiny",
        studies_dir=machines["A"].place.studies_dir,
        storage=machines["A"].place.storage_url,
    )
    assert results.study.user_attrs["test"]["trial_number"] == results.best_trial.number
    assert [trial.state for trial in results.study.get_trials()] == [TrialState.COMPLETE] * 2


def test_of_each_trial_one_archive_stays(machines):
    store = machines["A"].place.studies_dir.parent / "store"
    assert sorted(path.name[:10] for path in store.iterdir()) == ["tiny-0000-", "tiny-0001-"]


def test_a_machine_without_the_files_exports_and_reports_them(machines):
    shown = machines["C"].command("show", "tiny", "0")
    assert shown.stderr.startswith("Fetching the files of trial 0, ")
    assert " MB, from /" in shown.stderr
    machines["C"].command("status", "tiny")
    assert machines["C"].command("report", "tiny").stderr == ""  # they are here now
    machines["C"].command("compare", "tiny", "--trial", "0", "--trial", "1")
    machines["C"].command("export", "tiny", "--trial", "0")
    exported = machines["C"].place.study_dir("tiny") / "export" / ADAPTER
    assert exported.read_bytes() == machines["B"].file(ADAPTER).read_bytes()
