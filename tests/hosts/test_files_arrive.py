"""Machines that share a database and a store, each with a folder of its own: a trial begun on one
goes on on another, and a third one exports it.
"""

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

ITERS = 24
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

    def iterations(self):
        return [each.values["iteration"] for each in self.events if each.kind == "eval"]

    def command(self, *words):
        done = CliRunner().invoke(main, [*words, *self.options])
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done


def sweep_of(tiny_model_dir, chat_data_dir, **changes):
    sweep = tiny_sweep(tiny_model_dir, chat_data_dir)
    sweep["train"]["iters"] = ITERS
    search = {"learning_rate": {"choices": [1e-2]}}
    return load_sweep({**sweep, "search": search, "trials": 1, **changes})


@pytest.fixture(scope="module")
def machines(tmp_path_factory, tiny_model_dir, chat_data_dir):
    """A trial begun on A, where it was stopped, went on on B; A tested it. C has nothing yet."""
    folder = tmp_path_factory.mktemp("machines")
    (folder / "store").mkdir()
    spec = sweep_of(tiny_model_dir, chat_data_dir, artifacts=str(folder / "store"))
    found = {name: Machine(folder, name) for name in "ABC"}

    def stop(event):
        if event.kind == "eval" and event.values["iteration"] >= 8:
            raise LookupError("stopped")

    with pytest.raises(LookupError, match="stopped"):
        found["A"].start(spec, stop)
    study = open_study("tiny", studies_dir=folder / "A", storage=found["A"].place.storage_url)
    assert state_of(study.study.get_trials()[0]) == "paused"
    found["B"].join()
    found["A"].events.clear()
    found["A"].start(spec)
    return found


@pytest.fixture(scope="module")
def never_paused(tmp_path_factory, tiny_model_dir, chat_data_dir):
    machine = Machine(tmp_path_factory.mktemp("alone"), "alone")
    machine.start(sweep_of(tiny_model_dir, chat_data_dir))
    return machine


def test_a_trial_goes_on_on_another_machine_as_if_it_had_never_paused(machines, never_paused):
    assert min(machines["B"].iterations()) > 8  # it did not begin anew
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
    for name in SAME:
        assert machines["A"].file(name).read_bytes() == machines["B"].file(name).read_bytes(), name
    results = open_study(
        "tiny",
        studies_dir=machines["A"].place.studies_dir,
        storage=machines["A"].place.storage_url,
    )
    assert results.study.user_attrs["test"]["trial_number"] == 0
    assert [trial.state for trial in results.study.get_trials()] == [TrialState.COMPLETE]


def test_one_archive_stays_of_a_trial_that_was_paused(machines):
    store = machines["A"].place.studies_dir.parent / "store"
    assert len(list(store.iterdir())) == 1


def test_a_machine_without_the_files_exports_and_reports_them(machines):
    shown = machines["C"].command("show", "tiny")
    assert shown.stderr.startswith("Fetching the files of trial 0, ")
    assert " MB, from /" in shown.stderr
    assert machines["C"].command("report", "tiny").stderr == ""  # they are here now
    machines["C"].command("compare", "tiny", "--trial", "0", "--trial", "0")
    machines["C"].command("status", "tiny")
    machines["C"].command("export", "tiny")
    exported = machines["C"].place.study_dir("tiny") / "export" / ADAPTER
    assert exported.read_bytes() == machines["B"].file(ADAPTER).read_bytes()
