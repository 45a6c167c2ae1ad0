"""What a search knows, in words."""

import pytest

from hawsweep.results.what_is_known import known_sentences
from hawsweep.search.belief import Belief, KeyBelief
from hawsweep.spec.read import check_sweep

SEARCH = {
    "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
    "lora_parameters.dropout": {"low": 0.0, "high": 0.2},
    "grad_accumulation_steps": {"choices": [1, 4]},
    "optimizer": {"choices": ["adam", "muon"]},
}
SPEC = check_sweep({"model": "m", "data": "phrasebook", "search": SEARCH}, "a sweep")


def sentences(*keys, **changes):
    known = {
        "leader": 7,
        "leader_stays": 0.83,
        "n_next": 4,
        "gain": 0.002,
        "gain_low": 0.0,
        "gain_high": 0.0091,
    }
    return known_sentences(Belief(keys, **{**known, **changes}), SPEC)


@pytest.mark.parametrize(
    ("belief", "said"),
    [
        (
            KeyBelief("learning_rate", 4e-4, low=2.5e-4, high=6e-4),
            "lr: within x1.6 of 4.00e-04 (95 %).",
        ),
        (KeyBelief("learning_rate", 4e-4, low=2e-5, high=6e-3), "lr: not decided."),
        (
            KeyBelief("lora_parameters.dropout", 0.05, low=0.01, high=0.1),
            "dropout: 0.01 to 0.1 (95 %).",
        ),
        (KeyBelief("lora_parameters.dropout", 0.05, low=0.0, high=0.19), "dropout: not decided."),
        (KeyBelief("grad_accumulation_steps", 1, chance=0.97), "accum: 1 is best (97 %)."),
        (KeyBelief("grad_accumulation_steps", 1, chance=1.0), "accum: 1 is best (99 %)."),
        (KeyBelief("optimizer", "muon", chance=0.72), "optimizer: muon may be best (72 %)."),
        (KeyBelief("optimizer", "muon", chance=0.55), "optimizer: not decided."),
    ],
)
def test_key_is_told_as_far_as_it_is_known(belief, said):
    assert sentences(belief)[0] == said


def test_leader_and_what_an_hour_may_bring_are_told():
    _, leader, gain = sentences(KeyBelief("optimizer", "muon", chance=0.72))
    assert leader == "Trial 7 is the best of those begun by validation loss (83 %)."
    assert gain == "Another hour is expected to lower it by 0.2 % (0 to 0.91 %)."


def test_without_settings_to_begin_no_hour_is_told():
    assert len(sentences(KeyBelief("optimizer", "muon", chance=0.72), n_next=0)) == 2
