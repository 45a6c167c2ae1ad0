import io
import json

import pytest

from hawsweep.dashboard.wording import Worded, word_attributes, word_study, word_trial


def words(**attributes):
    """As the dashboard's server tells them: text as it is, all else as JSON."""
    given = [
        {"key": key, "value": value if isinstance(value, str) else json.dumps(value)}
        for key, value in attributes.items()
    ]
    return [(each["key"], each["value"]) for each in word_trial(given)]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("reason", "behind the median", ("why it ended", "behind the median")),
        ("reason", "12", ("why it ended", "12")),
        ("val_loss", 1.23456, ("val loss", "1.2346")),
        ("best_iteration", 40, ("best iteration", "40")),
        ("peak_memory_bytes", 1_234_567_890, ("peak memory, GB", "1.235")),
        ("exact_match", 0.25, ("exact matches, %", "25.0")),
        ("faults", {"empty": 2, "cut": 1}, ("faulty answers", "1 cut, 2 empty")),
        ("plan", {"text": "2 at a time", "tokens_at_once": None}, ("plan", "2 at a time")),
        (
            "continues",
            {"trial": 3, "iteration": 40},
            ("went on from", "iteration 40 of trial 3"),
        ),
        ("infeasible", True, ("fits into memory", "no")),
        ("fault", "out_of_memory", ("kind of fault", "out of memory")),
        ("worker", {"host": "mac", "pid": 7, "boot": "x"}, ("run by", "process 7 on mac")),
        ("unknown_key", {"a": 1}, ("unknown_key", '{"a": 1}')),
        # What is not as it should be is shown as it is stored.
        ("plan", [1], ("plan", "[1]")),
        ("plan", '{"text": "cut off', ("plan", '{"text": "cut off')),
        ("worker", {}, ("run by", "{}")),
        ("val_loss", "nan", ("val loss", "nan")),
    ],
)
def test_value_of_a_trial_is_worded(key, value, expected):
    assert words(**{key: value}) == [expected]


def test_values_of_a_trial_come_in_the_order_to_read_them_in_and_unknown_ones_are_left_out():
    found = words(worker={"host": "a", "pid": 1}, zzz=1, score=0.5, low=None, reason="over")
    assert [key for key, _ in found] == ["why it ended", "score", "run by", "zzz"]


def study_told(**trial):
    known = {"user_attrs": [], "intermediate_values": [], "state": "Complete", "artifacts": []}
    return {
        "name": "rates",
        "trials": [{**known, **trial}],
        "best_trials": [],
        "union_user_attrs": [
            {"key": "worker", "sortable": False},
            {"key": "score", "sortable": True},
        ],
        "user_attrs": [],
    }


def test_intermediate_values_are_told_as_losses():
    values = [{"step": 1, "value": -2.123456}, {"step": 2, "value": "-inf"}]
    values += [{"step": 3, "value": "nan"}]
    told = study_told(intermediate_values=values)
    word_study(told, {"spec": {}})
    assert [each["value"] for each in told["trials"][0]["intermediate_values"]] == [
        2.1235,
        "inf",
        "nan",
    ]


def test_columns_are_named_as_the_values_are():
    told = study_told()
    word_study(told, {"spec": {}})
    assert told["union_user_attrs"] == [
        {"key": "score", "sortable": True},
        {"key": "run by", "sortable": False},
    ]


def test_scores_have_no_more_digits_than_they_are_worth_and_pruned_trials_none():
    told = study_told(values=[0.123456])
    word_study(told, {"spec": {}})
    assert told["trials"][0]["values"] == [0.1235]
    told = study_told(values=[-2.5], state="Pruned")
    word_study(told, {"spec": {}})
    assert "values" not in told["trials"][0]


def test_study_of_another_program_is_told_as_it_is():
    values = [{"step": 1, "value": -2.0}]
    told = study_told(intermediate_values=values, values=[0.123456])
    before = json.dumps(told)
    word_study(told, {"other": 1})
    assert json.dumps(told) == before


def test_attributes_of_a_study_are_worded():
    search = {
        "learning_rate": {"low": 1e-5, "high": 0.02, "log": True, "step": None},
        "iters": {"low": 40, "high": 120, "log": False, "step": 40},
        "lora_parameters.rank": {"choices": [4, 8]},
    }
    worded = word_attributes(
        {
            "spec": {"model": "some/model", "data": [{"path": "a"}, "b"], "search": search},
            "base": {"score": 0.10704, "val_loss": 3.7242},
            "test": {"trial_number": 1, "trial": {"similarity": 0.6}, "base": {"similarity": 0.1}},
            "confirm": [{"trial_number": 1, "selected": 0.7, "scores": [0.5, 0.6]}],
            "self_check": {"floor": 0.1, "ceiling": 1.0, "warnings": ["few"]},
            "versions": {"mlx": "0.32.4", "optuna": "5.0.0"},
            "starts": [{"time": 0, "host": "mac", "platform": "macOS-15"}],
            "how": {"trials": 10, "machine": {"nice": 5}},
            "memory_factor": 1.15,
            "references": {},
            "stop": None,
            "mine": [1],
        }
    )
    assert worded == {
        "model": "some/model",
        "data": "a, b",
        "searched": "learning_rate 1.00e-05 to 0.02, logarithmic; iters 40 to 120 by 40; "
        "lora_parameters.rank 4, 8",
        "base": "score 0.1070, val loss 3.724",
        "scale of the metric": "from 0.100 (other prompts' references) to 1.000; few",
        "test split": "trial 1 0.6000, base 0.1000",
        "with new seeds": "trial 1 0.5500",
        "memory expected, times": "1.15",
        "last start": worded["last start"],
        "versions": "mlx 0.32.4, optuna 5.0.0",
        "how it runs": "trials 10, machine.nice 5",
        "mine": "[1]",
    }
    assert worded["last start"].endswith(" on mac (macOS-15), of 1")


def test_attribute_of_a_study_that_is_not_as_it_should_be_is_shown_as_stored():
    assert word_attributes({"base": [1], "starts": [{}]}) == {
        "base": "[1]",
        "last start": "[{}]",
    }


class Storage:
    def get_study_user_attrs(self, study_id):
        return {"spec": {}}


@pytest.mark.parametrize("body", [b"{", b'{"name": "a"}', b"[]"])
def test_answer_that_is_not_understood_passes_as_it_is(body):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    begun = []
    environ = {"PATH_INFO": "/api/studies/1", "REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()}
    answer = Worded(app, Storage())(environ, lambda *given: begun.append(given))
    assert answer == [body]
    assert begun == [("200 OK", [("Content-Length", str(len(body)))])]
