import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hawsweep.errors import ExportError, StudyError
from hawsweep.export.export import Request, export_trial
from hawsweep.layout import CONFIG_FILE, WEIGHTS_FILE


@pytest.fixture
def study():
    """Trial 0 is pruned, trial 1 complete."""
    study = optuna.create_study(study_name="tried", direction="maximize")
    study.add_trial(create_trial(state=TrialState.PRUNED))
    study.add_trial(create_trial(value=0.5))
    return study


def fault_of(study, place, **asked):
    with pytest.raises((ExportError, StudyError)) as raised:
        export_trial(study, place, Request(**asked))
    return str(raised.value)


def test_study_without_a_complete_trial_is_refused(place):
    study = optuna.create_study(study_name="new", direction="maximize")
    assert "'new' has no complete trial yet" in fault_of(study, place)


def test_trial_that_is_not_there_is_refused(study, place):
    with pytest.raises(StudyError, match="no trial 7; it has 0 to 1"):
        export_trial(study, place, Request(trial_number=7))


def test_trial_that_was_pruned_is_refused(study, place):
    assert "Trial 0 of study 'tried' is pruned. Name a complete one." in fault_of(
        study, place, trial_number=0
    )


@pytest.mark.parametrize("missing", [WEIGHTS_FILE, CONFIG_FILE])
def test_trial_without_its_adapter_is_refused(study, place, missing):
    folder = place.trial_dir("tried", 1) / "adapters"
    folder.mkdir(parents=True)
    for name in {WEIGHTS_FILE, CONFIG_FILE} - {missing}:
        (folder / name).touch()
    with pytest.raises(StudyError, match=rf"Trial 1 .* has no adapter.*{missing} is missing"):
        export_trial(study, place, Request())


def test_export_that_is_there_is_kept(study, place):
    adapters = place.trial_dir("tried", 1) / "adapters"
    adapters.mkdir(parents=True)
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        (adapters / name).touch()
    kept = place.study_dir("tried") / "export" / "kept"
    kept.mkdir(parents=True)
    assert "is there already, an export of an older hawsweep. Use --force" in fault_of(study, place)
    assert kept.is_dir()
