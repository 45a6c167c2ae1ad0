"""What a study is true to: model, metric, versions; and what is noted of each start."""

import os
import subprocess
import tempfile

import pytest

from hawsweep.errors import SpecChangedError
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import Choices
from hawsweep.study import provenance
from hawsweep.study.place import Place
from hawsweep.study.provenance import fingerprints, git_state, start_record
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study

DATA = {"train": "9:abc", "valid": "8:def", "test": "0:"}


def sweep(metric="chrf"):
    return check_sweep(
        {
            "model": "m",
            "data": "phrasebook",
            "search": {"learning_rate": {"low": 1e-5, "high": 1e-3}},
            "scoring": {"metric": metric},
        },
        "a sweep",
    )


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(3_000_000))
    return folder


@pytest.mark.parametrize("at", [0, 1_500_000, 2_999_999])
def test_fingerprint_of_a_model_changes_with_it(model, at):
    before = fingerprints(sweep(), model, DATA)
    assert before.items() >= DATA.items()
    assert fingerprints(sweep(), model, DATA) == before
    (model / "README.md").write_text("changed")
    assert fingerprints(sweep(), model, DATA) == before
    content = bytearray(bytes(3_000_000))
    content[at] = 1
    (model / "model.safetensors").write_bytes(content)
    # The middle of a large file is not read: that takes minutes for large models.
    assert (fingerprints(sweep(), model, DATA) == before) is (at == 1_500_000)
    (model / "model.safetensors").write_bytes(bytes(2_999_999))
    assert fingerprints(sweep(), model, DATA) != before


def test_metric_of_ones_own_is_part_of_it(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text("def metric(*_): return 1.0")
    before = fingerprints(sweep("judge:metric"), model, DATA)
    (tmp_path / "judge.py").write_text("def metric(*_): return 0.5")
    assert fingerprints(sweep("judge:metric"), model, DATA)["metric"] != before["metric"]
    assert "metric" not in fingerprints(sweep(), model, DATA)


def test_augmentation_of_ones_own_is_part_of_it(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search = {"augment.name": Choices(choices=("none", "mine:f", "diacritics"))}
    asked = sweep().model_copy(update={"search": search})
    (tmp_path / "mine.py").write_text("def f(source, reference): return None")
    before = fingerprints(asked, model, DATA)
    (tmp_path / "mine.py").write_text("def f(source, reference): return source, reference")
    changed = {
        key for key, value in fingerprints(asked, model, DATA).items() if before[key] != value
    }
    assert changed == {"augment mine:f"}


def test_commit_and_its_changes_are_noted(tmp_path):
    assert git_state(tmp_path) is None

    def git(*arguments):
        known = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", tmp_path, *known, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "sweep.yaml").write_text("a")
    git("add", ".")
    git("commit", "-m", "first")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "sweep.yaml").write_text("b")
    assert git_state(tmp_path) == {**state, "dirty": True}


@pytest.mark.parametrize("kind", ["sha256", "autocrlf", "filemode"])
def test_files_are_compared_as_the_repository_says(tmp_path, kind):
    def git(*arguments):
        known = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *known, *arguments], check=True, capture_output=True)

    git("init", f"--object-format={'sha256' if kind == 'sha256' else 'sha1'}")
    if kind != "sha256":
        git("config", f"core.{kind}", "true" if kind == "autocrlf" else "false")
    file = tmp_path / "data.txt"
    file.write_bytes(b"one\r\n" if kind == "autocrlf" else b"one\n")
    git("add", ".")
    git("commit", "-m", "first")
    file.chmod(0o755 if kind == "filemode" else 0o644)
    os.utime(file, (1, 1))  # else git takes its word that nothing changed
    assert git_state(tmp_path)["dirty"] is False
    file.write_bytes(b"two\n")
    assert git_state(tmp_path)["dirty"] is True


def test_state_of_which_no_comparison_is_possible_counts_as_changed(tmp_path, monkeypatch):
    subprocess.run(["git", "init", tmp_path], check=True, capture_output=True)
    known = ("-c", "user.name=a", "-c", "user.email=a@b")
    commit = ("commit", "--allow-empty", "-m", "first")
    subprocess.run(["git", "-C", tmp_path, *known, *commit], check=True, capture_output=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert git_state(tmp_path)["dirty"] is True


def test_each_start_is_noted(tmp_path):
    place = Place(tmp_path)
    storage = open_storage(place, create=True)
    for _ in range(3):
        create_study(storage, place, "s", sweep(), DATA)
    starts = load_study(storage, "s").user_attrs["starts"]
    assert len(starts) == 3
    assert starts[0].keys() == start_record().keys()
    assert starts[0]["versions"]["mlx"] != "not installed"


def test_study_of_other_versions_goes_on_only_where_that_is_accepted(tmp_path, monkeypatch):
    place = Place(tmp_path)
    storage = open_storage(place, create=True)
    made, _ = create_study(storage, place, "s", sweep(), DATA)
    made.set_user_attr("base", {})
    made.set_user_attr("versions", {**provenance.versions(), "mlx": "0.1.0"})
    with pytest.raises(SpecChangedError, match=r"mlx was 0\.1\.0, is .*--accept-versions"):
        create_study(storage, place, "s", sweep(), DATA)
    again, is_new = create_study(storage, place, "s", sweep(), DATA, accept_versions=True)
    assert not is_new
    assert again.user_attrs["starts"][-1]["versions"]["mlx"] != "0.1.0"


def test_study_of_another_model_is_refused_with_both(tmp_path):
    place = Place(tmp_path)
    storage = open_storage(place, create=True)
    made, _ = create_study(storage, place, "s", sweep(), {**DATA, "model": "aaa"})
    made.set_user_attr("base", {})
    with pytest.raises(SpecChangedError, match=r"model has changed \(aaa, now bbb\).*--study"):
        create_study(storage, place, "s", sweep(), {**DATA, "model": "bbb"})
    # One made before models had fingerprints goes on.
    older, _ = create_study(storage, place, "older", sweep(), DATA)
    older.set_user_attr("base", {})
    assert not create_study(storage, place, "older", sweep(), {**DATA, "model": "bbb"})[1]
