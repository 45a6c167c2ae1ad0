import json
import logging
import subprocess
import sys

import optuna
from noted_study import begin, complete
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note
from optuna_dashboard.artifact._backend import list_study_artifacts, list_trial_artifacts

from hawsweep.notes.annotate import _CHUNK, _save_note, annotate_study, annotate_trials
from hawsweep.notes.note import trial_note
from hawsweep.study.place import Place


def note_of(study, number=None):
    """As the dashboard reads it."""
    if number is None:
        return get_note(study)
    return get_note(optuna.Trial(study, study.get_trials()[number]._trial_id))


def attributes(study):
    return study._storage.get_study_system_attrs(study._study_id)


def links(study, number=None):
    """The names of what the dashboard offers."""
    if number is None:
        found = list_study_artifacts(attributes(study))
    else:
        trial = study.get_trials()[number]
        found = list_trial_artifacts(attributes(study), trial.system_attrs, trial)
    return sorted(each["filename"] for each in found)


def test_ended_trial_gets_note_and_links_and_its_study_too(study, place):
    number = complete(study, place, 0.6)
    annotate_trials(study, place, [number])
    assert "semantic similarity 0.6000" in note_of(study, number)
    assert "Under way: 1 of 3 trials" in note_of(study)
    assert links(study, number) == ["adapter.md", "config.yaml", "translations.jsonl"]
    assert links(study) == ["base-translations.jsonl", "sweep.yaml"]


def test_failed_trial_links_its_log(study, place):
    trial, folder = begin(study, place)
    (folder / "log.txt").write_text("Killed")
    study.tell(trial, state=TrialState.FAIL)
    annotate_trials(study, place, [trial.number])
    assert links(study, trial.number) == ["config.yaml", "log.txt"]


def test_note_of_more_than_one_attribute_is_read_whole_and_so_is_a_shorter_one_after_it(
    study, place
):
    trial, folder = begin(study, place)
    study.tell(trial, 0.5)
    text = "y" * 160  # five lines with four texts each: more than an attribute holds
    sample = dict.fromkeys(("source", "reference", "output"), text) | {"similarity": 0.5}
    (folder / "samples.jsonl").write_text(f"{json.dumps(sample)}\n" * 5)
    annotate_trials(study, place, [0])
    long = note_of(study, 0)
    assert len(long) > _CHUNK
    assert long == trial_note(study, place, study.get_trials()[0]).body
    _save_note(study, 1, "short", attributes(study))
    assert note_of(study, 0) == "short"


def test_note_that_is_as_it_was_is_not_written_again(study, place):
    number = complete(study, place, 0.6)
    annotate_study(study, place, ended=True)
    before = attributes(study)
    annotate_study(study, place, ended=True)
    assert attributes(study) == before
    assert note_of(study, number)


def test_what_a_person_wrote_stays(study, place):
    number = complete(study, place, 0.6)
    save_note(study, "Mine.")
    annotate_study(study, place, ended=False)
    trial = optuna.Trial(study, study.get_trials()[number]._trial_id)
    save_note(trial, f"{get_note(trial)} Look at this one!")
    complete(study, place, 0.7)
    annotate_study(study, place, ended=True)
    assert note_of(study) == "Mine."
    assert note_of(study, number).endswith("Look at this one!")


def test_note_and_link_that_a_person_removed_stay_away(study, place):
    complete(study, place, 0.6)
    annotate_study(study, place, ended=False)
    save_note(study, "")
    (key,) = [key for key, value in attributes(study).items() if "sweep.yaml" in str(value)]
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(None))
    complete(study, place, 0.7)
    annotate_study(study, place, ended=True)
    assert note_of(study) == ""
    assert links(study) == ["base-translations.jsonl"]


def test_machine_without_the_files_does_not_write_over_a_note_made_with_them(
    study, place, tmp_path
):
    number = complete(study, place, 0.6)
    elsewhere = Place(tmp_path / "elsewhere")
    annotate_study(study, elsewhere, ended=True)
    poor = note_of(study, number)
    assert "nonsense" not in poor
    assert links(study, number) == []
    annotate_study(study, place, ended=True)
    rich, verdict = note_of(study, number), note_of(study)
    assert "nonsense" in rich
    annotate_study(study, elsewhere, ended=True)
    assert (note_of(study, number), note_of(study)) == (rich, verdict)


def test_running_trial_gets_a_note_that_its_end_replaces(study, place):
    trial, _ = begin(study, place)
    annotate_study(study, place, ended=False)
    assert note_of(study, 0).startswith("**Running**")
    study.tell(trial, 0.5)
    annotate_trials(study, place, [0])
    assert note_of(study, 0).startswith("**semantic similarity 0.5000**")


def test_note_that_cannot_be_written_costs_nothing_but_the_note(study, place, monkeypatch, caplog):
    number = complete(study, place, 0.6)

    def fail(*_):
        raise RuntimeError("postgresql://user:secret@host")

    monkeypatch.setattr(study._storage, "set_study_system_attr", fail)
    with caplog.at_level(logging.WARNING):
        annotate_trials(study, place, [number])
        annotate_study(study, place, ended=True)
    assert caplog.messages == ["The notes of study 'rates' are not all written: RuntimeError"] * 2


def test_supervisor_loads_nothing_heavy_for_notes():
    modules = ["mlx", "plotly", "optuna_dashboard", "sklearn", "torch"]
    loading = "import sys, hawsweep.notes.annotate"
    code = f"{loading}; print([m for m in {modules} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
