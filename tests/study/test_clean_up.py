"""What of a study's trials stays on disk, and whether there is room for it."""

import re
import shutil
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hawsweep.errors import StudyError
from hawsweep.models.shape import shape_of
from hawsweep.planning.calibration import uncalibrated
from hawsweep.planning.check_settings import differing_trains
from hawsweep.planning.disk_space import bytes_to_write, check_space
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import apply_settings
from hawsweep.study.clean_up import not_kept, remove_bulk
from hawsweep.study.place import Place

CONTENT = {
    "model": "tiny",
    "data": "phrasebook",
    "search": {
        "learning_rate": {"low": 1e-5, "high": 1e-3},
        "lora_parameters.rank": {"choices": [4, 8]},
    },
    "confirm": {"top": 0},
    "train": {"num_layers": 2},
}
BULK = ("adapters/adapters.safetensors", "checkpoints/0000020/x.safetensors", "state.safetensors")
SMALL = ("metrics.jsonl", "samples.jsonl", "log.txt")


def sweep(**changes):
    return check_sweep({**CONTENT, **changes}, "a sweep")


@pytest.fixture
def study(place):
    """Trials 0 to 3 complete with 0.1, 0.4, 0.3, 0.2; then pruned, failed, failed and queued again,
    running.
    """
    made = optuna.create_study(study_name="s", direction="maximize")
    for value in (0.1, 0.4, 0.3, 0.2):
        made.add_trial(create_trial(value=value))
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL):
        made.add_trial(create_trial(state=state))
    made.enqueue_trial({}, user_attrs={"repeats": 6})
    made.add_trial(create_trial(state=TrialState.RUNNING))
    for number in range(9):
        for name in (*BULK, *SMALL):
            path = place.trial_dir("s", number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    return made


def with_bulk(place):
    return [n for n in range(9) if all((place.trial_dir("s", n) / name).exists() for name in BULK)]


@pytest.mark.parametrize(
    ("keep", "top", "left"),
    [
        ("all", 0, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("best 2", 0, [1, 2, 6, 7, 8]),
        ("best 1", 3, [1, 2, 3, 6, 7, 8]),  # what is to be trained again is kept
        ("best 10", 0, [0, 1, 2, 3, 6, 7, 8]),
    ],
)
def test_bulk_of_trials_that_are_not_kept_is_removed(study, place, keep, top, left):
    remove_bulk(study, place, sweep(keep=keep, confirm={"top": top}))
    assert with_bulk(place) == left
    for number in range(9):
        assert all((place.trial_dir("s", number) / name).is_file() for name in SMALL)
        kept = [(place.trial_dir("s", number) / name).exists() for name in BULK]
        assert all(kept) or not any(kept)


def test_state_is_kept_for_the_retry_of_a_retry(study, place):
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"repeats": 5}))
    study.enqueue_trial({}, user_attrs={"repeats": 9})
    assert {5, 6, 9}.isdisjoint(not_kept(study, sweep(keep="best 1")))
    assert 4 in not_kept(study, sweep(keep="best 1"))


def test_trial_that_won_by_new_seeds_is_kept(study, place):
    won = {"trial_number": 3, "selected": 0.2, "scores": [0.5]}
    study.set_user_attr("confirm", [won])
    remove_bulk(study, place, sweep(keep="best 1"))
    assert with_bulk(place) == [1, 3, 6, 7, 8]


def test_removing_twice_or_what_is_not_there_is_no_fault(study, place):
    remove_bulk(study, place, sweep(keep="best 1"))
    shutil.rmtree(place.trial_dir("s", 4))
    remove_bulk(study, place, sweep(keep="best 1"))
    assert with_bulk(place) == [1, 6, 7, 8]


@pytest.fixture
def known(tiny_model):
    return uncalibrated(shape_of(tiny_model.config).dequantized(), "cpu")


def test_what_a_sweep_writes_grows_with_what_it_keeps(known):
    asked = {"trials": 50, "pruning": {"name": "median"}}
    some = bytes_to_write(sweep(**asked), known, 1)
    assert bytes_to_write(sweep(**asked, keep="best 2"), known, 1) < some
    assert bytes_to_write(sweep(**asked, keep="all"), known, 1) > some
    assert bytes_to_write(sweep(**asked), known, 4) > some
    every = sweep(**asked, train={**CONTENT["train"], "keep_checkpoints": "every"})
    assert bytes_to_write(every, known, 1) > some


def test_all_trials_may_be_paused_at_a_time(known):
    asked = {"trials": 50, "keep": "best 2", "confirm": {"top": 0}}
    n_more = 50 - 2
    largest = max(known.shape.trained_parameters(each) for each in differing_trains(sweep()))
    pruned = bytes_to_write(sweep(**asked, pruning={"name": "median"}), known, 1)
    # An adapter, and a state: the adapter, two moments, and pending gradients.
    assert bytes_to_write(sweep(**asked), known, 1) == pruned + n_more * 5 * 4 * largest


def test_trials_beyond_the_settings_of_the_space_write_nothing(known):
    two = {**CONTENT["search"], "learning_rate": {"choices": [1e-4]}}
    of_2, of_50 = (
        bytes_to_write(sweep(search=two, trials=n, keep="all"), known, 1) for n in (2, 50)
    )
    assert of_2 == of_50


def test_estimate_covers_adapter_and_state_of_the_largest_rank(known):
    spec = sweep(trials=1, keep="best 1")
    largest = apply_settings(spec.train, {"lora_parameters.rank": 8})
    n_bytes = 4 * known.shape.trained_parameters(largest)
    assert bytes_to_write(spec, known, 1) >= 5 * n_bytes  # with its moments and gradients


@pytest.mark.parametrize(
    ("pruning", "kept", "remedy"),
    [
        ("promote", 0, "Make room, ask for fewer trials or lower ranks, or choose another"),
        ("median", 0, "Make room, keep less (keep: best 1), or choose another"),
        ("none", 3, "Make room, keep less (keep: best 1), lower train.keep_checkpoints, or choose"),
    ],
)
def test_sweep_that_the_disk_has_no_room_for_is_refused(
    known, tmp_path, monkeypatch, pruning, kept, remedy
):
    place = Place(tmp_path / "not" / "there" / "yet")
    train = {**CONTENT["train"], "keep_checkpoints": kept}
    spec = sweep(pruning={"name": pruning}, train=train)
    check_space(spec, known, place, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=90_000_000))
    with pytest.raises(StudyError, match=rf"0\.09 GB are free.*{re.escape(remedy)}"):
        check_space(spec, known, place, 1)
