"""What a process checks and waits for before it runs trials of another machine's study."""

from pathlib import Path

import pytest
from tiny_sweep import tiny_sweep

from hawsweep.errors import SpecChangedError, StudyError
from hawsweep.spec.read import check_sweep
from hawsweep.study import study as study_module
from hawsweep.study.attributes import HOW
from hawsweep.study.located import found_here, located
from hawsweep.study.storage import open_storage
from hawsweep.study.study import await_study, check_same_here, create_study

PRINTS = {"train": "24:abc", "model": "0123456789ab"}


@pytest.fixture
def spec():
    return check_sweep(tiny_sweep("models/tiny", "data/pairs"), "a sweep")


@pytest.fixture
def storage(place):
    return open_storage(place, create=True)


@pytest.fixture
def study(storage, place, spec):
    return create_study(storage, place, "tiny", spec, PRINTS)[0]


def test_study_that_is_not_yet_started_is_waited_for_and_said_once(storage, place, spec):
    create_study(storage, place, "other", spec, PRINTS)
    said, made = [], []

    def sleep(seconds):
        assert 1 <= seconds <= 3
        if len(made) == 0:
            made.append(None)
        elif len(made) == 1:
            made.append(create_study(storage, place, "tiny", spec, PRINTS)[0])
        else:
            made[1].set_user_attr(HOW, {})  # a start writes this last
            made.append(None)

    assert await_study(storage, "tiny", said.append, sleep).study_name == "tiny"
    assert len(made) == 3
    assert said == ["Waiting for study 'tiny' to be started. Studies there: other. Ctrl-C ends it"]


def test_same_data_model_and_versions_may_join(study):
    check_same_here(study, PRINTS)
    check_same_here(study, {**PRINTS, "augment mine": "of a newer version"})


def test_what_differs_is_said_with_both_values(study, monkeypatch):
    there = study_module.versions()
    monkeypatch.setattr(study_module, "versions", lambda: {**there, "mlx": "9.9.9"})
    with pytest.raises(SpecChangedError) as caught:
        check_same_here(study, {**PRINTS, "model": "ba9876543210"})
    differs = (
        f"mlx is {there['mlx']} there and 9.9.9 here; "
        "model is 0123456789ab there and ba9876543210 here."
    )
    assert differs in str(caught.value)


def test_paths_of_this_machine_stand_for_those_of_the_sweep(spec, place, tmp_path):
    model, data = tmp_path / "model", tmp_path / "pairs"
    model.mkdir()
    data.mkdir()
    here = found_here(spec, model, data)
    found = located(spec, {"models/tiny": "../models/tiny", **here}, place)
    assert (found.model, found.data[0].path) == (str(model), str(data))
    assert found_here(spec, None, None) == {}


def test_one_path_for_several_models_is_refused():
    searched = {"search": {"model": {"choices": ["models/a", "models/b"]}}}
    content = {**tiny_sweep("models/a", "data/pairs"), **searched}
    del content["model"]
    several = check_sweep(content, "a sweep")
    with pytest.raises(StudyError, match="--model is the place of one, and the sweep has models/a"):
        found_here(several, Path("models/c"), None)
