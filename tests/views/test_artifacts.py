import io
import json
import os
import uuid

import pytest
from noted_study import begin, complete, make_study
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState

from hawsweep.layout import ADAPTER_DIR
from hawsweep.notes.attachments import offers_of
from hawsweep.views.dashboard import artifacts
from hawsweep.views.dashboard.artifacts import StudyFiles, adapter_card


def ids(study, place, number=None):
    """Artifact ids by the names that are shown."""
    trial = None if number is None else study.get_trials()[number]
    return {offer.filename: id for id, offer in offers_of(study, place, trial).items()}


def read(place, artifact_id):
    with StudyFiles(place).open_reader(artifact_id) as file:
        return file.read()


def named(*parts):
    return json.dumps(parts).encode().hex()


def test_adapters_folder_is_called_as_trials_call_it():
    assert artifacts.ADAPTER_DIR == ADAPTER_DIR


def test_files_are_served_from_where_they_lie(study, place):
    number = complete(study, place, 0.6)
    found = ids(study, place, number)
    folder = place.trial_dir("rates", number)
    served = read(place, found["translations.jsonl"])
    assert served == (folder / "samples.jsonl").read_bytes()
    (folder / "samples.jsonl").write_text("changed")
    assert read(place, found["translations.jsonl"]) == b"changed"
    assert read(place, ids(study, place)["sweep.yaml"]).startswith(b"# {")


def test_run_with_a_new_seed_is_served_from_its_folder(study, place):
    trial, folder = begin(study, place, folder_of=place.confirm_dir)
    assert (
        read(place, named("rates.confirm", trial.number, "config.yaml")) == b"model: some/model\n"
    )
    assert folder == place.confirm_dir("rates", trial.number)


@pytest.mark.parametrize(
    "artifact_id",
    [
        named("rates", 0, "spec.yaml"),
        named("rates", 0, "../../hawsweep.db"),
        named("..", 0, "config.yaml"),
        named("../rates", None, "sweep.yaml"),
        named("rates/trials", None, "sweep.yaml"),
        named("/etc", None, "sweep.yaml"),
        named(".artifacts", None, "sweep.yaml"),
        named("rates", -1, "config.yaml"),
        named("rates", "0", "config.yaml"),
        named("rates", 7, "config.yaml"),
        named("absent", None, "sweep.yaml"),
        named("rates", 0),
        "7b",
        "ff",
        "-",
        "41380527-62ff-4684-bc01-d967ee8a1a0a",
        "../hawsweep.db",
        "",
    ],
)
def test_id_that_names_nothing_offered_leads_nowhere(study, place, artifact_id):
    begin(study, place)
    files = StudyFiles(place)
    assert not files.is_here(artifact_id)
    with pytest.raises(ArtifactNotFound):
        files.open_reader(artifact_id)
    files.remove(artifact_id)
    assert (place.trial_dir("rates", 0) / "config.yaml").is_file()


def test_link_that_leads_out_of_the_studies_is_not_followed(study, place, tmp_path):
    _, folder = begin(study, place)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "config.yaml").unlink()
    os.symlink(secret, folder / "config.yaml")
    with pytest.raises(ArtifactNotFound, match="leads elsewhere"):
        StudyFiles(place).open_reader(named("rates", 0, "config.yaml"))


def test_upload_is_kept_apart_and_removed_while_a_trials_file_stays(study, place):
    number = complete(study, place, 0.6)
    files, upload = StudyFiles(place), str(uuid.uuid4())
    files.write(upload, io.BytesIO(b"a chart"))
    assert files.is_here(upload)
    assert read(place, upload) == b"a chart"
    assert [path.name for path in place.studies_dir.glob(".artifacts/*")] == [upload]
    files.remove(upload)
    assert not files.is_here(upload)
    files.remove(upload)
    own = ids(study, place, number)["translations.jsonl"]
    files.remove(own)
    assert files.is_here(own)


def test_upload_with_an_id_that_is_a_path_is_refused(study, place):
    with pytest.raises(ArtifactNotFound):
        StudyFiles(place).write("../evil", io.BytesIO(b""))
    assert not (place.studies_dir / "evil").exists()


def test_store_has_what_optunas_stores_have():
    offered = {name for name in dir(FileSystemArtifactStore) if not name.startswith("_")}
    assert offered <= set(dir(StudyFiles))


def test_files_of_an_earlier_study_of_that_name_are_not_offered(study, place):
    trial, folder = begin(study, place)
    study.tell(trial, state=TrialState.FAIL)
    assert "config.yaml" in ids(study, place, 0)
    began = study.get_trials()[0].datetime_start.timestamp()
    for path in folder.iterdir():
        os.utime(path, (began - 60, began - 60))
    assert ids(study, place, 0) == {}


def test_pruned_trial_offers_neither_translations_nor_adapter(study, place):
    trial, _ = begin(study, place)
    study.tell(trial, state=TrialState.PRUNED)
    assert sorted(ids(study, place, 0)) == ["config.yaml"]


def test_empty_file_and_one_that_is_not_there_are_not_offered(study, place):
    trial, folder = begin(study, place)
    (folder / "log.txt").write_text("")
    (folder / "config.yaml").unlink()
    study.tell(trial, state=TrialState.FAIL)
    assert ids(study, place, 0) == {}


def test_name_too_long_for_a_databases_column_has_no_links(place):
    study = make_study(place, "a" * 240)
    complete(study, place, 0.6)
    assert ids(study, place, 0) == {}


def test_card_says_where_the_adapter_lies_and_how_it_is_used(study, place):
    number = complete(study, place, 0.6)
    folder = place.trial_dir("rates", number)
    (place.study_dir("rates") / "spec.yaml").write_text("scoring:\n  max_tokens: 300\n")
    card = read(place, ids(study, place, number)["adapter.md"]).decode()
    assert card == adapter_card(folder)
    assert f"`{folder}/adapters/adapters.safetensors` (3.0 MB)" in card
    assert "| `rank` | `8` |" in card
    command = f"mlx_lm.generate --model some/model --adapter-path {folder}/adapters"
    assert f"{command} --prompt ... --max-tokens 300" in card


def test_card_of_an_adapter_that_is_no_longer_kept_says_so(study, place):
    number = complete(study, place, 0.6)
    artifact_id = ids(study, place, number)["adapter.md"]
    adapter = place.trial_dir("rates", number) / "adapters"
    for path in adapter.iterdir():
        path.unlink()
    assert "It was removed" in read(place, artifact_id).decode()
