"""A study is looked at and goes on from any folder: its model and data are where it was started."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from harness import Lab
from tried_study import make_tried_study

from hawsweep.cli import main
from hawsweep.data.load import load_data
from hawsweep.errors import DataError, ModelError
from hawsweep.models import hub
from hawsweep.models.resolve import resolve_model
from hawsweep.planning.share_memory import WorkerShares
from hawsweep.results.companion import companion_spec
from hawsweep.running import start
from hawsweep.spec.read import read_sweep
from hawsweep.spec.sweep import DataSpec
from hawsweep.study.attributes import PATHS
from hawsweep.study.located import paths_of
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study, spec_of
from hawsweep.trial.answers import SideBySide

MODEL, DATA = "org/tiny", "./pairs"
PLACE = Place(Path("studies"))


@pytest.fixture
def project(tmp_path, tiny_model_dir, chat_data_dir, monkeypatch):
    """The current folder, with a model whose name a repository could have, and data."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_model_dir, folder / MODEL)
    shutil.copytree(chat_data_dir, folder / DATA)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("the hub was asked"))
    for module in ("models.resolve", "data.load"):
        monkeypatch.setattr(f"hawsweep.{module}.fetch", hub.fetch)


def make_study():
    """A study of a start in the current folder."""
    study, _ = make_tried_study(PLACE, Path(MODEL), DATA)
    study.set_user_attr(PATHS, paths_of([MODEL, DATA], {}, PLACE))


def open_from_elsewhere(project, monkeypatch):
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    monkeypatch.chdir(elsewhere)
    place = Place(Path("..") / project.name / "studies")
    return load_study(open_storage(place), "tiny"), place


@pytest.mark.parametrize("name", ["project", "moved"])
def test_trial_answers_from_another_folder_and_in_a_moved_project(
    project, name, monkeypatch, no_hub
):
    make_study()
    project = project.rename(project.with_name(name))
    study, place = open_from_elsewhere(project, monkeypatch)
    asked = SideBySide(study, place, 0)
    asked.load()
    assert dict(asked.answers(asked.prompt("Aloha"))).keys() == {"base", "trial"}
    found = spec_of(study, study.trials[0], place)
    assert (found.model, found.data[0].path) == (str(project / MODEL), str(project / "pairs"))
    texts = {"description": "", "train": {}}
    beside = companion_spec(study, study.trials[0], place, [8], 1, **texts)
    assert (beside.model, beside.data[0].path) == (found.model, found.data[0].path)


@pytest.mark.parametrize(
    "command",
    ["status", "show", "list", "show 0", "export"],
)
def test_command_from_another_folder_names_what_was_said(project, command, monkeypatch, no_hub):
    make_study()
    study, place = open_from_elsewhere(project, monkeypatch)
    assert spec_of(study).model == MODEL
    stored = json.dumps(study.user_attrs)
    assert str(project.parent) not in stored
    assert '"../org/tiny"' in stored
    name = [] if command == "list" else ["tiny"]
    first, *options = command.split()
    arguments = [first, *name, *options, f"--studies-dir={place.studies_dir}"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output


def test_folder_that_is_gone_is_named_and_no_hub_is_asked(project, monkeypatch, no_hub):
    make_study()
    shutil.rmtree(project / "org")
    study, place = open_from_elsewhere(project, monkeypatch)
    with pytest.raises(ModelError, match=f"there is no folder {project / MODEL}"):
        SideBySide(study, place, 0).load()
    shutil.rmtree(project / "pairs")
    with pytest.raises(DataError, match=f"there is no folder or file {project / 'pairs'}"):
        SideBySide(study, place, 0)


@pytest.mark.parametrize("said", ["./m", "../m", "~/m", "/no/such/m"])
def test_path_is_never_a_repository(said, tmp_path, monkeypatch, no_hub):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(ModelError, match=f"The model '{said}' was not found: there is no folder /"):
        resolve_model(said)
    with pytest.raises(DataError, match=f"The data '{said}' was not found: there is no folder or"):
        load_data([DataSpec(path=said)])


def test_study_of_an_earlier_version_has_its_paths_seen_from_here(project):
    make_tried_study(PLACE, Path(MODEL), DATA)
    study = load_study(open_storage(PLACE), "tiny")
    assert spec_of(study, None, PLACE).model == MODEL


def test_study_goes_on_from_another_folder_with_the_model_of_its_first_start(
    project, monkeypatch, no_hub
):
    Lab(project, MODEL, DATA)
    spec, seen = read_sweep(project / "sweep.yaml"), []

    def shares(spec, paths, say):
        seen.append((Path(paths[MODEL]).resolve(), Path(spec.data[0].path).resolve()))
        return WorkerShares(1, None, {}, {})

    monkeypatch.setattr(start, "share_memory", shares)
    monkeypatch.setattr(start, "_supervise", lambda *_, **__: "finished")
    start.run_sweep(spec, "tiny", studies_dir="studies")
    kept = load_study(open_storage(PLACE), "tiny").user_attrs[PATHS]
    assert kept == {MODEL: "../org/tiny", DATA: "../pairs"}
    _, place = open_from_elsewhere(project, monkeypatch)
    Path("pairs").mkdir()  # which is another
    start.run_sweep(spec, "tiny", studies_dir=place.studies_dir)
    assert seen == [(project / MODEL, project / "pairs")] * 2
    assert load_study(open_storage(place), "tiny").user_attrs[PATHS] == kept


def test_worker_writes_absolute_paths_for_mlx_lm(project, monkeypatch, no_hub):
    lab = Lab(Path(), MODEL, DATA)
    worker = lab.worker(Path(MODEL))
    lab.run_next(worker)
    config = yaml.safe_load((project / "studies/tiny/trials/0000/config.yaml").read_text())
    assert (config["model"], config["data"]) == (str(project / MODEL), str(project / "pairs"))
