import optuna
import pytest
from noted_study import SOURCES, begin, complete, make_study
from optuna.trial import TrialState

from hawsweep.notes.note import study_note, trial_note
from hawsweep.study.place import Place


def note_of(study, place, number):
    return trial_note(study, place, study.get_trials(deepcopy=False)[number])


def test_trial_note_says_settings_plan_score_and_translations(study, place):
    number = complete(study, place, 0.6)
    note = note_of(study, place, number)
    assert note.has_files
    rank = study.get_trials()[number].params["lora_parameters.rank"]
    assert (
        "**semantic similarity 0.6000** (95 % 0.550-0.650) on the validation prompts, +0.5000 over "
        "the untuned model." in note.body
    )
    assert f"| `lora_parameters.rank` | `{rank}` |" in note.body
    assert "Val loss 1.5000, the lowest, at iteration 40." in note.body
    assert "Plan: whole, predicted peak 2 GB, measured peak 1.9 GB." in note.body
    assert "Faulty answers: 1 cut." in note.body
    row = r"| ʻO kēia kaʻu waiū\. | This is my milk\. | nonsense | This is my milk\. | 0.600 |"
    assert row in note.body
    assert "hawsweep export rates --trial 0 --fuse" in note.body


def test_trial_note_of_a_machine_without_the_files_has_no_translations(study, place, tmp_path):
    number = complete(study, place, 0.6)
    note = note_of(study, Place(tmp_path / "elsewhere"), number)
    assert not note.has_files
    assert "semantic similarity 0.6000" in note.body
    assert SOURCES[1] not in note.body


def test_translations_steer_nothing_in_a_note(study, place):
    evil = "<script>x</script> | ![a](http://evil.example)\n# b"
    number = complete(study, place, 0.6, outputs=(evil, "b"))
    body = note_of(study, place, number).body
    line = r"\<script\>x\<\/script\> \| \!\[a\]\(http\:\/\/" + "\u2060" + r"evil\.example\) \# b"
    assert f"| {line} | 0.600 |" in body


@pytest.mark.parametrize(
    ("attributes", "state", "expected"),
    [
        ({"reason": "behind the median"}, TrialState.PRUNED, "**Pruned**: behind the median."),
        (
            {"reason": "needs 3.00 GB", "infeasible": True},
            TrialState.PRUNED,
            r"**Does not fit into memory**: needs 3\.00 GB.",
        ),
        ({"reason": "it *died*"}, TrialState.FAIL, r"**Failed**: it \*died\*."),
        ({}, TrialState.FAIL, "**Failed**"),
    ],
)
def test_trial_note_says_why_it_ended(study, place, attributes, state, expected):
    trial, _ = begin(study, place)
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    study.tell(trial, state=state)
    body = note_of(study, place, trial.number).body
    assert body.startswith(f"{expected}\n")
    assert "export" not in body


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"confirms": 3, "seed": 5}, "The settings of trial 3 with seed 5."),
        ({"repeats": 2}, "Retry of trial 2."),
        ({"continues": {"trial": 2, "iteration": 20}}, "Went on from iteration 20 of trial 2."),
        ({"suggested_by": "published sweeps"}, "Suggested by published sweeps."),
    ],
)
def test_trial_note_says_where_it_comes_from(study, place, attributes, expected):
    number = complete(study, place, 0.6, **attributes)
    assert f"\n{expected}\n" in note_of(study, place, number).body


def test_trial_note_with_damaged_translations_is_written_without_them(study, place):
    number = complete(study, place, 0.6)
    (place.trial_dir("rates", number) / "samples.jsonl").write_text("{")
    assert "this trial" not in note_of(study, place, number).body


def test_study_note_under_way_says_how_far_and_judges_nothing(study, place):
    complete(study, place, 0.6)
    note = study_note(study, place, ended=False)
    assert not note.has_files
    assert note.body.startswith(r"A sweep \| of \<b\>two\<\/b\> kinds\.")
    assert "Under way: 1 of 3 trials (1 complete)." in note.body
    assert "hawsweep status rates --watch" in note.body
    assert "export" not in note.body


def test_study_note_at_the_end_has_verdict_best_trials_and_what_to_do(study, place):
    for score in (0.6, 0.7, 0.65):
        complete(study, place, score)
    note = study_note(study, place, ended=True)
    assert note.has_files
    assert r"**Use no trial yet\: trial 1 is not told apart" in note.body  # by two prompts
    assert "Done: 3 trials (3 complete)." in note.body
    best_first = [note.body.index(f"\n| {label} |") for label in ("1", "2", "0", "base")]
    assert best_first == sorted(best_first)
    assert "`some/model` on `phrasebook`; searched: `learning_rate`" in note.body
    assert "hawsweep compare rates" in note.body
    assert "export" not in note.body


def test_counts_of_a_study_note_add_up(study, place):
    for score in (0.6, 0.7, 0.65):
        complete(study, place, score)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    body = study_note(study, place, ended=True).body
    assert "Done: 3 trials (3 complete), and 1 fail." in body


def test_study_note_of_one_that_was_stopped_says_so(study, place):
    complete(study, place, 0.6)
    assert "Stopped after 1 of 3 trials" in study_note(study, place, ended=True).body


def test_study_note_tells_of_test_split_and_new_seeds(study, place):
    complete(study, place, 0.6)
    scores = {"trial": {"similarity": 0.55}, "base": {"score": 0.2, "similarity": 0.3}}
    study.set_user_attr("test", {"trial_number": 0, "n_prompts": 8, "n_opened": 2, **scores})
    study.set_user_attr("confirm", [{"trial_number": 0, "selected": 0.6, "scores": [0.5, 0.56]}])
    body = study_note(study, place, ended=True).body
    assert "(8 prompts): trial 0 **0.5500**, untuned 0.2000. The test split was" in body
    assert "trial 0 scores 0.5300 on the validation prompts (first 0.6000)." in body


def test_study_of_new_seeds_says_whose_it_is(place):
    study = make_study(place)
    other = optuna.create_study(storage=study._storage, study_name="rates.confirm")
    assert "of the study `rates`, trained again" in study_note(other, place, ended=True).body


def test_study_without_trials_has_a_note(study, place):
    body = study_note(study, place, ended=False).body
    assert "Under way: 0 of 3 trials." in body


def test_study_note_at_the_end_has_translations_and_what_importance_rests_on(study, place):
    complete(study, place, 0.6, outputs=("This is my milk 2.", "Hello!"))
    assert "importance" not in study_note(study, place, ended=True).body
    complete(study, place, 0.5)
    body = study_note(study, place, ended=True).body
    assert "Translations of the validation prompts, with the gain over the untuned model:" in body
    row = r"| ʻO kēia kaʻu waiū\. | This is my milk\. | nonsense | This is my milk 2\. | +0.500 |"
    assert row in body
    assert (
        "The importance on the dashboard's page rests on 2 complete trials, too few to go by: it "
        "takes 8." in body
    )
    assert "Translations" not in study_note(study, place, ended=False).body


def test_near_miss_is_said_in_the_study_note(study, place):
    complete(study, place, 0.9, outputs=("This is your milk.", "Hello!"))
    body = study_note(study, place, ended=True).body
    assert r"This is your milk\. (near miss: \"your\" for \"my\")" in body


def test_study_note_leads_to_the_runs_with_new_seeds(study, place):
    complete(study, place, 0.6)
    assert "new seeds" not in study_note(study, place, ended=True).body
    optuna.create_study(storage=study._storage, study_name="rates.confirm")
    body = study_note(study, place, ended=True).body
    assert "[The runs with new seeds](/dashboard/studies/2)" in body
