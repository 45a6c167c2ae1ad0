import logging
import threading

import optuna
from noted_study import begin, complete
from optuna_dashboard import get_note
from optuna_dashboard.artifact._backend import list_trial_artifacts

from hawsweep.machine.processes import supervising
from hawsweep.study.backup import back_up, backup_path
from hawsweep.study.place import Place
from hawsweep.study.storage import confirm_name, open_storage
from hawsweep.study.study import load_study
from hawsweep.views.dashboard import refresh
from hawsweep.views.dashboard.artifacts import StudyFiles
from hawsweep.views.dashboard.refresh import Refresher, refreshed


def plots(study):
    found = study._storage.get_study_system_attrs(study._study_id)
    return {key.split(":")[2] for key in found if key.startswith("dashboard:plot_data:")}


def test_study_of_an_older_version_gets_notes_and_plots(study, place):
    complete(study, place, 0.6)
    assert get_note(study) == ""
    Refresher(open_storage(place), place).look()
    assert "Stopped after 1 of 3 trials" in get_note(study)
    assert plots(study) == {
        "learning-curves",
        "score-against-loss",
        "memory-predicted-against-measured",
    }


def test_report_written_meanwhile_is_linked_in_the_note(study, place, tmp_path):
    complete(study, place, 0.6)
    refresher = Refresher(open_storage(place), place)
    refresher.look()
    assert "The report" not in get_note(study)
    (place.study_dir("rates") / "report.html").write_text("<title>The report</title>")
    refresher.look()
    note = get_note(study)
    assert f"[The report](/artifacts/{study._study_id}/" in note
    Refresher(open_storage(place), Place(tmp_path / "elsewhere")).look()
    assert get_note(study) == note


def test_backup_without_notes_gets_notes_links_and_plots(study, place):
    complete(study, place, 0.6)
    back_up(place.database_path)
    new = Place(place.studies_dir, f"sqlite:///{backup_path(place.database_path)}")
    storage = open_storage(new)
    Refresher(storage, new).look()
    again = load_study(storage, "rates")
    trial = again.get_trials()[0]
    assert "semantic similarity 0.6000" in get_note(optuna.Trial(again, trial._trial_id))
    found = list_trial_artifacts(storage.get_study_system_attrs(again._study_id), {}, trial)
    assert len(found) == 3
    assert StudyFiles(new).open_reader(found[0]["artifact_id"]).read()
    assert len(plots(again)) == 3


def test_studies_of_other_programs_are_left_alone(study, place):
    other = optuna.create_study(storage=study._storage, study_name="../elsewhere")
    other.set_user_attr("spec", {})
    plain = optuna.create_study(storage=study._storage, study_name="plain")
    Refresher(open_storage(place), place).look()
    for each in (other, plain):
        assert each._storage.get_study_system_attrs(each._study_id) == {}


def test_runs_with_new_seeds_get_notes(study, place):
    other = optuna.create_study(storage=study._storage, study_name=confirm_name("rates"))
    begin(other, place, folder_of=place.confirm_dir)
    Refresher(open_storage(place), place).look()
    assert "trained again with new seeds" in get_note(other)
    assert "Its files: `rates/confirm/0000`" in get_note(optuna.Trial(other, 1))
    assert plots(other) == set()


def test_study_that_is_run_is_not_judged_and_is_when_it_ended(study, place):
    complete(study, place, 0.6)
    refresher = Refresher(open_storage(place), place)
    with supervising(place.study_dir("rates"), {}):
        refresher.look()
        assert "Under way" in get_note(study)
    refresher.look()
    assert "Stopped" in get_note(study)


def test_what_did_not_change_is_not_drawn_again(study, place, monkeypatch):
    drawn = []
    monkeypatch.setattr(refresh, "save_plots", lambda opened: drawn.append(opened.study_name))
    refresher = Refresher(open_storage(place), place)
    refresher.look()
    refresher.look()
    assert drawn == ["rates"]
    trial, _ = begin(study, place)
    refresher.look()
    trial.report(-1.0, 60)
    refresher.look()
    assert drawn == ["rates"] * 3


def test_plot_that_is_as_it_was_is_not_saved_again(study, place, monkeypatch):
    import optuna_dashboard

    complete(study, place, 0.6)
    refresh.save_plots(study)
    saved = []
    monkeypatch.setattr(
        optuna_dashboard, "save_plotly_graph_object", lambda *_, **k: saved.append(k)
    )
    refresh.save_plots(study)
    assert saved == []
    complete(study, place, 0.7)
    refresh.save_plots(study)
    assert len(saved) == 3


def test_fault_while_looking_is_told_once_and_does_not_end_the_looking(caplog):
    looked, enough = [], threading.Event()

    def look():
        looked.append(1)
        if len(looked) == 3:
            enough.set()
        raise RuntimeError("postgresql://user:secret@host")

    with caplog.at_level(logging.WARNING), refreshed(look, interval_s=0.001):
        assert enough.wait(30)
    assert caplog.messages == ["Notes and plots are not up to date: RuntimeError"]


def test_looking_ends_with_the_block():
    looked = []
    with refreshed(lambda: looked.append(1), interval_s=60):
        pass
    assert not any(thread.name == "refresh" for thread in threading.enumerate())
