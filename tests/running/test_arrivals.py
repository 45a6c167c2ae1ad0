"""Files of trials that end elsewhere arrive, and archives that ``keep`` does not keep go."""

import optuna
import pytest

from hawsweep.running.arrivals import arriving
from hawsweep.running.events import Event
from hawsweep.spec.read import check_sweep
from hawsweep.study import travel
from hawsweep.study.attributes import ARTIFACTS
from hawsweep.study.optuna_door import storage_of
from hawsweep.study.place import Place

SPEC = {
    "model": "tiny",
    "data": "phrasebook",
    "search": {"learning_rate": {"low": 1e-5, "high": 1e-3}},
    "confirm": {"top": 0},
    "keep": "best 1",
}
WEIGHTS = "adapters/adapters.safetensors"


class Sweep:
    def __init__(self, folder):
        self.there, self.here = Place(folder / "there"), Place(folder / "here")
        self.store = folder / "store"
        self.store.mkdir()
        self.study = optuna.create_study(study_name="s", direction="maximize")
        self.confirming = optuna.create_study(study_name="s.confirm", direction="maximize")
        for study in (self.study, self.confirming):
            study.set_user_attr(ARTIFACTS, str(self.store))
        self.told = []

    def end_there(self, study, score):
        """A trial is trained on the other machine."""
        number = study.ask().number
        folder = self.there.folder_of(study.study_name, number)
        for name in (WEIGHTS, "metrics.jsonl"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{number} {score}")
        travel.put(study, self.there, number)
        study.tell(number, score)
        return folder

    def run(self, *, joins=False):
        """What was told until the sweep has ended."""
        spec = check_sweep(SPEC, "a sweep")
        with arriving(
            spec, self.study, self.confirming, self.here, self.told.append, joins=joins
        ) as listen:
            listen(Event("tick"))
            listen(Event("ended"))
        return [(event.kind, event.values.get("text")) for event in self.told]

    def has(self, study, number, name):
        return (self.here.folder_of(study.study_name, number) / name).is_file()


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def test_files_of_all_trials_are_here_when_the_end_is_told(sweep):
    sweep.end_there(sweep.study, 0.2)
    sweep.end_there(sweep.study, 0.3)
    sweep.end_there(sweep.confirming, 0.1)
    assert sweep.run() == [("tick", None), ("ended", None)]
    for number in (0, 1):
        assert sweep.has(sweep.study, number, "metrics.jsonl")
    assert sweep.has(sweep.confirming, 0, "metrics.jsonl")


def test_keep_applies_to_adapters_here_and_to_archives(sweep):
    for score in (0.2, 0.3, 0.1):
        sweep.end_there(sweep.study, score)
    sweep.run()
    assert [number for number in range(3) if sweep.has(sweep.study, number, WEIGHTS)] == [1]
    [left] = sweep.store.iterdir()
    assert left.name.startswith("s-0001-")
    sweep.run()  # the next start neither fetches nor removes again
    assert [number for number in range(3) if sweep.has(sweep.study, number, WEIGHTS)] == [1]


def test_a_look_does_not_read_the_study_for_each_trial(sweep, monkeypatch):
    for score in range(8):
        sweep.end_there(sweep.study, score)
    storage, reads = storage_of(sweep.study), []
    read = storage.get_all_trials
    monkeypatch.setattr(
        storage, "get_all_trials", lambda *args, **how: reads.append(1) or read(*args, **how)
    )
    sweep.run()
    assert len(list(sweep.store.iterdir())) == 1  # all were fetched, and all but one removed
    assert len(reads) < 8


def test_a_store_that_fails_is_said_once_and_before_the_end(sweep):
    sweep.end_there(sweep.study, 0.2)
    [archive] = sweep.store.iterdir()
    archive.write_bytes(b"other")
    (kind, text), *rest = sweep.run()[1:]
    assert kind == "not_told"
    assert text.startswith("The files of trial 0 cannot be fetched from the store /")
    assert [each for each, _ in rest] == ["ended"]


def test_one_that_fails_keeps_no_other_from_arriving(sweep):
    sweep.end_there(sweep.study, 0.2)
    [archive] = sweep.store.iterdir()
    archive.write_bytes(b"other")
    sweep.end_there(sweep.study, 0.3)
    sweep.run()
    assert sweep.has(sweep.study, 1, "metrics.jsonl")


def test_who_joins_fetches_nothing(sweep):
    sweep.end_there(sweep.study, 0.2)
    sweep.run(joins=True)
    assert not sweep.here.studies_dir.exists()
