"""What a start says before it trains, of rungs and of a study of an earlier version."""

import pytest

from hawsweep.errors import ModelError
from hawsweep.running.start import run_sweep
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

RATES = {"learning_rate": {"low": 1e-5, "high": 1e-3}}


def sweep(**changes):
    content = {"model": "./no-model", "data": "phrasebook", "search": RATES, **changes}
    return check_sweep({**content, "confirm": {"top": 0}}, "a sweep")


def told(folder, spec):
    """What a start says of how it searches; it ends because its model is missing."""
    events = []
    with pytest.raises(ModelError):
        run_sweep(spec, "rates", studies_dir=folder, on_event=events.append)
    texts = [each.values["text"] for each in events if each.kind == "preparing"]
    return [each for each in texts if each.startswith(("no trial", "each trial", "pruning"))]


def made_by_an_earlier_version(folder, spec):
    place = Place(folder)
    study, _ = create_study(open_storage(place, create=True), place, "rates", spec, {})
    study.set_user_attr("spec", {**spec.fingerprint(), "pruning": {"name": "median"}})


@pytest.mark.parametrize(
    "train",
    [
        {"iters": 15, "steps_per_eval": 5},  # below the first rung
        {"iters": 100, "steps_per_eval": 100},  # no evaluation meets a rung
    ],
)
def test_sweep_without_rungs_is_told(tmp_path, train):
    (said,) = told(tmp_path, sweep(train=train))
    assert said.startswith("no trial pauses, each is trained whole")
    assert told(tmp_path, sweep(train=train, pruning={"name": "none"})) == []


def test_study_of_an_earlier_version_goes_on_with_its_iters_and_is_told_of_pruning(tmp_path):
    search = {**RATES, "iters": {"choices": [100, 800]}}
    spec = sweep(search=search, train={"steps_per_eval": 20})
    (said,) = told(tmp_path / "new", spec)
    assert said.startswith("each trial is trained for 800 iterations")
    made_by_an_earlier_version(tmp_path / "old", spec)
    assert told(tmp_path / "old", spec) == [
        "pruning was median, is promote: it decides which trials go on from now"
    ]
