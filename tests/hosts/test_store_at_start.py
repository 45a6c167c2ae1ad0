"""What a start and a worker say of the store before anything is trained."""

import optuna
import pytest
from tiny_sweep import tiny_sweep

from hawsweep.errors import SpecError, StudyError
from hawsweep.running import start
from hawsweep.spec.read import load_sweep
from hawsweep.study.artifact_stores import BESIDE, artifacts_url, record_artifacts
from hawsweep.study.attributes import ARTIFACTS
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study


@pytest.fixture
def spec(tiny_model_dir, chat_data_dir):
    return load_sweep(tiny_sweep(tiny_model_dir, chat_data_dir))


@pytest.fixture
def started(monkeypatch):
    """What a start says before it measures anything."""
    said = []

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hawsweep.running.start._resolve", stop)

    def run(spec, place):
        with pytest.raises(KeyboardInterrupt):
            start.run_sweep(
                spec,
                "tiny",
                studies_dir=place.studies_dir,
                storage=place.storage_url,
                on_event=said.append,
            )
        return [each.values["text"] for each in said if each.kind == "not_told"]

    return run


def test_a_store_that_cannot_be_used_is_said_before_anything_is_made(spec, tmp_path):
    spec = spec.model_copy(update={"artifacts": str(tmp_path / "missing")})
    with pytest.raises(StudyError, match=r"missing is not there. Make it, or mount it\."):
        start.run_sweep(spec, "tiny", studies_dir=tmp_path / "studies")
    assert not (tmp_path / "studies" / "hawsweep.db").exists()


def test_a_worker_says_that_the_store_is_not_here(spec, tmp_path):
    place = Place(tmp_path / "studies")
    study, _ = create_study(open_storage(place, create=True), place, "tiny", spec, {})
    study.set_user_attr(ARTIFACTS, str(tmp_path / "missing"))
    with pytest.raises(StudyError, match="missing is not there"):
        start.join_sweep("tiny", place, lambda _: None)


def test_a_database_elsewhere_without_a_store_keeps_adapters_where_they_are(
    spec, started, tmp_path
):
    here = Place(tmp_path / "here")
    assert started(spec, here) == []
    shared = Place(tmp_path / "a", f"sqlite:///{tmp_path}/shared.db?timeout=60")
    assert started(spec, shared) == [
        "artifacts is not set: adapters stay on the machines that make them"
    ]


def test_a_start_without_hosts_goes_on_with_the_starters_folder():
    study = optuna.create_study()
    record_artifacts([study], None)
    assert artifacts_url(study) is None
    study.set_user_attr(ARTIFACTS, BESIDE)
    record_artifacts([study], None)
    assert artifacts_url(study) == BESIDE
    record_artifacts([study], "s3://lab-files")
    assert artifacts_url(study) == "s3://lab-files"
    record_artifacts([study], None)
    assert artifacts_url(study) is None


def test_a_machine_may_reach_the_store_elsewhere(monkeypatch):
    study = optuna.create_study()
    study.set_user_attr(ARTIFACTS, BESIDE)
    monkeypatch.setenv("HAWSWEEP_ARTIFACTS", "http://127.0.0.1:8000/")
    assert artifacts_url(study) == "http://127.0.0.1:8000/"


@pytest.mark.parametrize("value", ["s3://lab-files", "s3://lab-files/a/b", "/mnt/shared", None])
def test_known_stores_are_read(tiny_model_dir, chat_data_dir, value):
    content = {**tiny_sweep(tiny_model_dir, chat_data_dir), "artifacts": value}
    assert load_sweep(content).artifacts == value


@pytest.mark.parametrize(
    "value", ["files", "~/files", "s3://KEY:SECRET@lab", "http://127.0.0.1:1/", "s3://", ["/a"]]
)
def test_other_stores_are_refused(tiny_model_dir, chat_data_dir, value):
    content = {**tiny_sweep(tiny_model_dir, chat_data_dir), "artifacts": value}
    with pytest.raises(SpecError, match="artifacts"):
        load_sweep(content)
