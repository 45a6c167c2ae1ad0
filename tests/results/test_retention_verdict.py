"""What a loss of retention is said to be, from recorded answers."""

import numpy as np
import pytest
from judged_study import record
from reported_study import answers, write_samples

from hawsweep.export.model_card import card
from hawsweep.notes.note import study_note
from hawsweep.results.retention import retention_of
from hawsweep.results.verdict import judge_study
from hawsweep.study.confirm import winner
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import known_spec, load_study
from hawsweep.views.report.content import make_report


def kept(folder, lost, prompted=None, most=0.1):
    """The study ``rates`` whose winner lost so much on each question."""
    place = Place(folder / "studies")
    record("clear", place)
    study = load_study(open_storage(place), "rates")
    best = winner(study)
    about = {"trial_number": best.number, "data": "bundled", "n_prompts": len(lost)}
    study.set_user_attr("retention", about)
    study.set_user_attr("how", {"retention": {"data": "bundled", "most": most}})
    base, tuned = place.study_dir("rates") / "base", place.trial_dir("rates", best.number)
    one = answers(0.0)[0]

    def write(path, scores):
        write_samples(path, [{**one, "score": float(score)} for score in scores])

    write(base / "retention_samples.jsonl", np.full(len(lost), 80.0))
    write(tuned / "retention_samples.jsonl", 80.0 * (1 - np.array(lost)))
    if prompted is not None:
        write(base / "retention_few_shot_samples.jsonl", 80.0 * (1 - np.array(prompted)))
    return study, place


NOISE = np.tile([-0.02, 0.0, 0.02, 0.01, -0.01], 8)


@pytest.mark.parametrize(
    ("lost", "outcome"),
    [
        (0.05 + NOISE, "kept"),
        (0.5 + NOISE, "lost"),
        (0.1 + NOISE, "not told"),
        # Equal but for one: the bootstrap has no end there.
        ([0.0] * 39 + [0.2], "kept"),
        ([1.0] * 39 + [0.7], "lost"),
        ([0.0] * 40, "kept"),
        ([1.0] * 40, "lost"),
        ([0.0, 0.3, 0.0], "not told"),  # three questions tell little
    ],
)
def test_loss_is_named_where_it_is_larger_than_asked_beyond_chance(tmp_path, lost, outcome):
    study, place = kept(tmp_path, lost)
    found = retention_of(study, place, known_spec(study), winner(study))
    assert found.outcome == outcome
    assert found.lost.mean == pytest.approx(np.mean(lost))
    assert found.lost.low <= found.lost.mean <= found.lost.high
    assert np.isfinite([found.lost.low, found.lost.high]).all()


def test_verdict_and_report_say_it_beside_what_a_prompt_moves(tmp_path):
    study, place = kept(tmp_path, 0.5 + NOISE, 0.2 + NOISE)
    study.set_user_attr("few_shot", {"n_examples": 4, "score": 0.2, "similarity": 0.2})
    verdict = judge_study(study, place)
    assert verdict.ships  # it is named, and a person decides
    sentence = (
        "Trial 1 forgets: on 40 everyday questions it loses 50 % (95 % 50 to 50 %) of the untuned "
        "model's score against its own answers, more than the 10 % of retention.most; with 4 "
        "examples in its prompt the untuned model loses 20 % (95 % 20 to 20 %)."
    )
    assert sentence in verdict.sentences
    assert verdict.retention.sentence() == sentence
    assert sentence in make_report(study, place).said
    words = "on 40 everyday questions it loses 50"
    assert words in study_note(study, place, ended=True).body
    told = card(study, place, winner(study))
    assert words in told
    assert "may have lost, beyond what is said above;" in told
    study.set_user_attr("retention", None)
    assert "abilities of the base that this model may have lost;" in card(
        study, place, winner(study)
    )


def test_answers_of_another_trial_or_other_questions_say_nothing(tmp_path):
    study, place = kept(tmp_path, 0.5 + NOISE)
    spec, best = known_spec(study), winner(study)
    other = next(each for each in study.trials if each.number != best.number)
    assert retention_of(study, place, spec, other) is None
    asked = spec.retention.model_copy(update={"data": "own.txt"})
    changed = spec.model_copy(update={"retention": asked})
    assert retention_of(study, place, changed, best) is None
    accepted = spec.retention.model_copy(update={"most": 0.6})
    tolerant = spec.model_copy(update={"retention": accepted})
    assert retention_of(study, place, tolerant, best).outcome == "kept"


@pytest.mark.parametrize(
    ("n", "share", "outcome", "low", "high"),
    [(8, 0.0, "not told", 0.0, 0.32), (40, 0.0, "kept", 0.0, 0.088), (8, 1.0, "lost", 0.68, 1.0)],
)
def test_answers_that_are_all_alike_have_an_interval(tmp_path, n, share, outcome, low, high):
    study, place = kept(tmp_path, [share] * n)
    found = retention_of(study, place, known_spec(study), winner(study))
    assert (found.lost.mean, found.outcome) == (share, outcome)
    assert (found.lost.low, found.lost.high) == pytest.approx((low, high), abs=0.005)
