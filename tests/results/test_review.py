import json

import pytest
from click.testing import CliRunner
from judged_study import record
from noted_study import SPEC
from reviewed_study import N_SAME, N_SENTENCES, make_reviewed_study, write_answers

from hawsweep.cli import main
from hawsweep.errors import ScoringError, StudyError
from hawsweep.results.review import ReviewSession, read_judgments, review_of, review_path
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.views.json_schema import OUTPUTS


@pytest.fixture
def study(place):
    return make_reviewed_study(place)


def judge(session, *wanted):
    """Say of each sentence in turn whose answer is better."""
    for said in wanted:
        session.say(session.question(), said)


def test_review_counts_preferences_and_agreement(study, place):
    session, preferred, agreed = ReviewSession(study, place, 20), 0, 0
    for number in range(20):
        question = session.question()
        said = "equal" if number < 3 else "neither" if number < 5 else "trial"
        said = "base" if number in (5, 6) else said
        preferred += said == "trial"
        agreed += said == question.scored
        session.say(question, said)
    assert session.question() is None
    found = review_of(study, place)
    assert found == session.result()
    assert (found.n_trial, found.n_base, found.n_equal, found.n_neither) == (13, 2, 3, 2)
    assert found.preference.mean == preferred / 15
    assert (found.n_agreed, found.agreement.mean) == (agreed, agreed / 15)
    first, rest, *_ = found.sentences()
    # Wilson's interval of 13 in 15.
    assert first == (
        "In a blind review of 20 test sentences trial 1 was preferred on 13 of the 15 where one "
        "was better: 87 % (95 % 62 to 96 %)."
    )
    assert rest == (
        "On 2 the untuned model was preferred, on 3 both were equally good and on 2 neither was "
        "right."
    )
    assert f"the same answer as the person on {agreed} of 15" in " ".join(found.sentences())


def test_even_preference_may_be_chance(study, place):
    judge(ReviewSession(study, place, 4), "trial", "base", "trial", "base")
    assert "50 % (95 % 15 to 85 %), which may be chance" in review_of(study, place).sentences()[0]


def test_both_orders_are_shown_and_depend_on_the_study_alone(study, place):
    session, shown = ReviewSession(study, place, 20), []
    while (question := session.question()) is not None:
        shown.append(question)
        session.say(question, "equal")
    orders = [each.systems for each in shown]
    assert set(orders) == {("base", "trial"), ("trial", "base")}
    for each in shown:
        for system, answer in zip(each.systems, each.answers, strict=True):
            assert answer.startswith(f"{system} says")
    review_path(study, place).unlink()
    assert ReviewSession(study, place, 20).question() == shown[0]


def test_interrupted_review_goes_on_with_the_next_sentence(study, place):
    session = ReviewSession(study, place, 20)
    judge(session, "trial", "base", "equal")
    expected = session.question()
    later = ReviewSession(study, place, 20)
    assert later.n_judged == 3
    assert later.question() == expected


def test_undo_takes_the_last_judgment_back_also_on_disk(study, place):
    session = ReviewSession(study, place, 20)
    judge(session, "trial")
    expected = session.question()
    judge(session, "base")
    assert session.undo()
    assert session.question() == expected
    assert [each.said for each in read_judgments(review_path(study, place))].count("base") == 0
    assert session.undo()
    assert not session.undo()


def test_identical_answers_are_counted_and_not_shown(study, place):
    session = ReviewSession(study, place, 100)
    assert session.n_sentences == N_SENTENCES - N_SAME
    while (question := session.question()) is not None:
        assert "same" not in question.answers[0]
        session.say(question, "trial")
    assert session.result().n_same == N_SAME
    assert "3 more with the same answer twice were not shown." in session.result().sentences()


def test_review_begins_anew_and_keeps_the_earlier_one(study, place):
    judge(ReviewSession(study, place, 20), "trial", "trial")
    anew = ReviewSession(study, place, 20, again=True)
    assert anew.n_judged == 0
    path = review_path(study, place)
    assert len(read_judgments(path.with_name("review-1.jsonl"))) >= 2
    judge(anew, "base")
    ReviewSession(study, place, 20, again=True)
    assert path.with_name("review-2.jsonl").exists()
    assert review_of(study, place) is None


def test_review_of_other_answers_is_refused_and_said(study, place):
    judge(ReviewSession(study, place, 20), "trial", "trial")
    write_answers(place, name="another")
    with pytest.raises(StudyError, match=r"trial 1, to the test prompts\. Begin .* --again"):
        ReviewSession(study, place, 20)
    found = review_of(study, place)
    assert not found.is_current
    assert found.sentences()[-1].startswith("The study now has another best trial")
    assert ReviewSession(study, place, 20, again=True).n_judged == 0


def test_review_of_another_trial_is_refused(study, place):
    judge(ReviewSession(study, place, 20), "trial")
    write_answers(place, prefix="", trial=2)
    best = {"trial_number": 2, "selected": 0.5, "scores": [0.9]}
    study.set_user_attr("confirm", [best])
    with pytest.raises(StudyError, match="trial 2, to the validation prompts"):
        ReviewSession(study, place, 20)


def test_without_test_answers_the_validation_prompts_are_judged(place):
    study = make_reviewed_study(place, is_tested=False)
    session = ReviewSession(study, place, 20)
    assert session.split == "validation"
    judge(session, "neither")
    assert review_of(study, place).sentences()[0] == (
        "In a blind review of 1 validation sentence no answer was preferred."
    )


def test_single_sentence_can_be_judged(place):
    study = record("clear", place)
    write_answers(place, n_sentences=N_SAME + 1)
    session = ReviewSession(study, place, 20)
    assert session.n_sentences == 1
    judge(session, "trial")
    assert "on 1 of the 1 where one was better: 100 % (" in session.result().sentences()[0]
    assert session.result().preference.low == pytest.approx(0.207, abs=0.001)  # 1 / (1 + 1.96 ** 2)


def test_what_cannot_be_reviewed_is_said(place):
    study = record("clear", place)  # both answer alike
    with pytest.raises(ScoringError, match="answer all 16 test prompts alike"):
        ReviewSession(study, place, 20)
    for path in place.trial_dir("rates", 1).glob("*samples.jsonl"):
        path.unlink()
    with pytest.raises(ScoringError, match=r"Trial 1 .* no answers to the same prompts"):
        ReviewSession(study, place, 20)
    empty, _ = create_study(open_storage(place), place, "empty", SPEC, {})
    with pytest.raises(StudyError, match="'empty' has no complete trial yet"):
        ReviewSession(empty, place, 20)


@pytest.mark.parametrize("text", ['{"trial": 1}\n', "[1]\n", "{\n"])
def test_damaged_review_is_named(study, place, text):
    review_path(study, place).write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=r"review\.jsonl is damaged"):
        review_of(study, place)


def test_review_is_in_json_as_the_schema_says(study, place):
    def run(*arguments):
        options = ["--json", f"--studies-dir={place.studies_dir}"]
        done = CliRunner().invoke(main, [*arguments, *options])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert run("review", "rates") is None
    assert run("status", "rates")["review"] is None
    judge(ReviewSession(study, place, 20), "trial", "base", "trial")
    found = run("review", "rates")
    assert (found["n_trial"], found["n_base"]) == (2, 1)
    OUTPUTS["review"].validate_python(found)
    assert found["sentences"] == review_of(study, place).sentences()
    assert run("status", "rates")["review"] == found


def test_review_without_a_terminal_is_refused(study, place):
    done = CliRunner().invoke(main, ["review", "rates", f"--studies-dir={place.studies_dir}"])
    assert done.exit_code == 2
    assert "so it needs a terminal. --json prints the result so far." in done.output
    done = CliRunner().invoke(main, ["review", "rates", "--json", "--again"])
    assert (done.exit_code, "leave out --again" in done.output) == (2, True)
