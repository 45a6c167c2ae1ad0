"""What a study's answers are said to be: right to the word, close, or neither."""

import pytest
from reported_study import make_reported_study, write_samples

from hawsweep.results.translations import Translation, spread, translations
from hawsweep.results.verdict import judge_study, untuned_text


def sample(reference, output, similarity, chrf=60.0, **more):
    values = {"score": similarity, "similarity": similarity, "chrf": chrf}
    return {"source": "He aha?", "reference": reference, "output": output, **values, **more}


@pytest.mark.parametrize(
    ("answer", "kind", "near_miss"),
    [
        (sample("The dog sleeps.", "the  dog sleeps.", 1.0), "exact", ""),
        (sample("The dog sleeps.", "The dog is asleep now.", 0.9), "close", ""),
        (sample("The dog sleeps.", "The cat sleeps.", 0.8), "other", '"cat" for "dog"'),
        (sample("Malia is your mother.", "Malia is my mother.", 0.97), "close", '"my" for "your"'),
        (sample("It is red.", "It is very red.", 0.9), "close", '"very" is added'),
        (sample("It is very red.", "It is red.", 0.9), "close", '"very" is missing'),
        (sample("I do not go.", "I do go.", 0.95), "close", "perhaps the opposite"),
        (sample("I don't go to him.", "To him I do not go.", 0.95), "close", ""),
        (sample("It is 12 miles.", "It is 21 miles.", 0.95), "close", "another number"),
        (sample("We noted the way.", "The way has a note.", 0.9), "close", ""),  # no negation
        (sample("The dog sleeps.", "A hound slumbers.", 0.86, 20.0), "close", "other words"),
        (sample("I do not go.", "Bananas.", 0.1), "other", ""),  # it is not taken for right
        ({"source": "", "reference": "a", "output": "b", "score": 3.0}, "other", ""),  # old study
    ],
)
def test_answers_are_told_apart(tmp_path, answer, kind, near_miss):
    study, place = make_reported_study(tmp_path)
    number = translations(study, place).trial
    for folder in (place.study_dir("rates") / "base", place.trial_dir("rates", number)):
        write_samples(folder / "test_samples.jsonl", [answer])
    (row,) = translations(study, place).rows
    assert (row.answers["trial"].kind, row.answers["trial"].near_miss) == (kind, near_miss)
    assert row.gain == 0


def test_answers_stand_beside_the_untuned_models_the_largest_gain_first(tmp_path):
    study, place = make_reported_study(tmp_path)
    found = translations(study, place)
    assert (found.split, len(found.rows)) == ("test", 16)
    assert found.labels["base"] == "base"
    assert found.labels["few_shot"] == "4-shot base"
    gains = [row.gain for row in found.rows]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == pytest.approx(0.88)  # 1 - .12
    assert found.rows[0].answers.keys() == {"base", "few_shot", "trial"}


def test_validation_prompts_where_the_test_was_not_opened(tmp_path):
    study, place = make_reported_study(tmp_path, is_tested=False)
    assert translations(study, place).split == "validation"
    (place.study_dir("rates") / "base" / "samples.jsonl").unlink()
    assert translations(study, place) is None


def test_how_many_are_right_is_a_sentence_of_the_verdict(tmp_path):
    study, place = make_reported_study(tmp_path)
    number = translations(study, place).trial
    right, near = sample("Aloha.", "aloha.", 1.0), sample("Aloha.", "Hello.", 0.9)
    wrong, cut = sample("Aloha.", "Bye.", 0.2), sample("Aloha.", "Bye " * 9, 0.1, fault="cut")
    base = place.study_dir("rates") / "base"
    write_samples(base / "test_samples.jsonl", [wrong, cut, cut, right])
    write_samples(base / "test_few_shot_samples.jsonl", [wrong, cut, wrong, wrong])
    tuned = place.trial_dir("rates", number) / "test_samples.jsonl"
    write_samples(tuned, [right, right, near, wrong])
    assert judge_study(study, place).sentences[2:4] == (
        "Of 4 test prompts, 2 are answered word for word, 1 is close (similarity 0.85 or more), "
        "1 is not; untuned: 1, 0 and 3.",
        "2 of 4 answers of the untuned model, 1 of those with examples were cut at "
        "scoring.max_tokens, which may lower its score.",
    )


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("base", "the untuned model"),
        ("4-shot base", "the untuned model with 4 examples"),
        ("4-shot base gemma-3-4b", "untuned gemma-3-4b with 4 examples"),
        ("base gemma-3-4b", "untuned gemma-3-4b"),
        ("4-shot base, instruction 2", "the untuned model with 4 examples and instruction 2"),
        ("base, instruction 1 gemma-3-4b", "untuned gemma-3-4b with instruction 1"),
    ],
)
def test_baselines_have_names_in_words(label, text):
    assert untuned_text(label) == text


@pytest.mark.parametrize(
    ("n", "most", "expected"),
    [(0, 3, []), (3, 3, [0, 1, 2]), (4, 3, [0, 2, 3]), (9, 3, [0, 4, 8]), (9, 2, [0, 8])],
)
def test_some_rows_are_spread_from_the_first_to_the_last(n, most, expected):
    rows = [Translation(str(at), "", None, {}, 0.0) for at in range(n)]
    assert [int(row.source) for row in spread(rows, most)] == expected
