"""`hawsweep worker` on another machine: by a proxy, where model and data are elsewhere."""

import json
import shutil

import pytest
from harness import Lab
from optuna.trial import TrialState
from storage_servers import serving_storage

from hawsweep.study.place import Place


@pytest.fixture
def labs(tmp_path, tiny_model_dir, chat_data_dir):
    """The machine that starts the sweep, and another one, with folders of its own."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    model, data = tmp_path / "there" / "model", tmp_path / "there" / "data"
    shutil.copytree(tiny_model_dir, model)
    shutil.copytree(chat_data_dir, data)
    changes = {"trials": 4, "search": {"iters": {"choices": [160]}}}
    here = Lab(tmp_path / "here", tiny_model_dir, chat_data_dir, **changes)
    return here, Lab(tmp_path / "there", model, data, **changes), model, data


def join(there, url, monkeypatch, *changes):
    with monkeypatch.context() as patched:
        patched.setenv("HAWSWEEP_STORAGE", url)
        return there.start("join", *changes)


def numbers_of(run):
    return {e["values"]["number"] for e in run.events if e["kind"] == "trial_end"}


def test_worker_by_a_proxy_shares_the_trials(labs, monkeypatch):
    here, there, model, data = labs
    with here.start() as run:
        run.next(("trial_start",))
        with serving_storage(Place(here.studies).url) as url:
            places = (f"model={model}", f"data={data}")
            with join(there, url, monkeypatch, *places) as second:
                assert second.wait() == 0, second.error
            assert run.wait() == 0
    here.check(4)
    assert [trial.state for trial in here.trials()] == [TrialState.COMPLETE] * 4
    assert numbers_of(run)
    assert numbers_of(second)
    assert not numbers_of(run) & numbers_of(second)
    for number in numbers_of(second):
        folder = there.studies / "tiny" / "trials" / f"{number:04d}"
        assert str(model) in (folder / "config.yaml").read_text()


def test_other_model_and_data_are_refused_with_what_differs(labs, monkeypatch):
    here, there, model, data = labs
    with here.start() as run:
        run.next(("trial_start",))
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "another": 1}))
        lines = (data / "train.jsonl").read_text().splitlines()
        (data / "train.jsonl").write_text("\n".join(lines[1:]) + "\n")
        with serving_storage(Place(here.studies).url) as url:
            places = (f"model={model}", f"data={data}")
            with join(there, url, monkeypatch, *places) as second:
                assert second.wait() == 1
    said, known = second.error["message"], here.study.user_attrs["spec"]["fingerprints"]
    assert second.error["error"] == "SpecChangedError"
    assert f"model is {known['model']} there and " in said
    assert f"train is {known['train']} there and 23:" in said
    assert "valid" not in said
    assert len(here.trials()) <= 2
