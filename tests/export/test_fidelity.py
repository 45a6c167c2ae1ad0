"""Whether a check tells what lost the adapter from what was rounded."""

import pytest

from hawsweep.errors import ExportError
from hawsweep.export import fuse as fuse_module
from hawsweep.export.fidelity import Check, compare_answers, tolerance
from hawsweep.export.fuse import fuse_checked
from hawsweep.spec.sweep import SweepSpec

TRIAL = ["Leilani read the book.", "The sea is calm today.", "He is hungry.", "It rained."]
BASE = ["Hello", "Hello, I am here.", "Hi", "I can help."]


def spec_of(metric):
    return SweepSpec.model_validate(
        {
            "model": "m",
            "data": "d",
            "search": {"learning_rate": {"low": 1e-5, "high": 1e-3}},
            "scoring": {"metric": metric},
        }
    )


def test_answers_are_compared_to_the_letter_and_nearly():
    near = [*TRIAL[:2], "He is hungry!", "Something else entirely"]
    found = compare_answers(near, TRIAL, BASE)
    assert found == {"identical": 0.5, "near": 0.5, "is_base": False}
    long = "the fishermen went down to the sea with their nets in the morning and came back late"
    found = compare_answers([f"{long}!"], [f"{long}."], ["Hello"])
    assert found == {"identical": 0.0, "near": 1.0, "is_base": False}


def test_answers_of_the_base_are_known():
    assert compare_answers(BASE, TRIAL, BASE)["is_base"]
    assert compare_answers([*BASE[:3], TRIAL[3]], TRIAL, BASE)["is_base"]
    assert not compare_answers(TRIAL, TRIAL, BASE)["is_base"]
    # An adapter that changed nothing: its answers are the base's, and are still its own.
    assert not compare_answers(BASE, BASE, BASE)["is_base"]


def test_answers_that_are_not_kept_leave_the_shares_open():
    assert compare_answers(TRIAL, None, BASE) == {}
    check = Check(0.5, 0.5, 0.01, 4)
    assert check.holds
    assert check.describe() == "0.5000 (trial 0.5000)"


@pytest.mark.parametrize(
    ("metric", "check", "expected"),
    [
        ("semantic_similarity", {}, 0.01),
        ("chrf", {}, 1.0),
        ("bleu", {}, 1.0),
        ("exact_match", {}, 1 / 40),  # one prompt of forty
        ("mine:score", {"floor": 2.0, "ceiling": 7.0}, 0.05),
        ("mine:loss", {"floor": -3.0, "ceiling": -1.0}, 0.02),
        ("mine:score", {}, 0.01),  # of a study without a self-check
    ],
)
def test_tolerance_is_a_share_of_the_metrics_scale(metric, check, expected):
    known = {"self_check": check} if check else {}
    assert tolerance(spec_of(metric), known, 40) == pytest.approx(expected, abs=2e-6)


def test_check_holds_within_its_tolerance_and_not_as_the_base():
    assert Check(0.509, 0.5, 0.01, 4).holds
    assert not Check(0.52, 0.5, 0.01, 4).holds
    assert not Check(0.5, 0.5, 0.01, 4, 0.0, 0.0, is_base=True).holds
    assert Check(0.1, None, 0.01, 4).holds  # nothing was measured before
    shares = Check(0.5, 0.5, 0.01, 40, 0.95, 1.0).describe()
    assert shares == "0.5000 (trial 0.5000), 95% of 40 answers identical, 100% nearly"


class Fuser:
    """Writes nothing; its models score what they are told to."""

    def __init__(self, *scores):
        self.scores, self.ways = list(scores), []

    def run(self, base, adapters, target, *, dequantize, trust_remote_code):
        self.ways.append(dequantize)

    def judge(self, target):
        return Check(self.scores.pop(0), 0.6, 0.01, 4)


@pytest.fixture
def fuse(tmp_path, monkeypatch):
    def run(fuser, *, quantized=True, dequantize=False):
        (tmp_path / "config.json").write_text(
            '{"quantization": {"bits": 4}}' if quantized else "{}"
        )
        monkeypatch.setattr(fuse_module, "run_fuse", fuser.run)
        monkeypatch.setattr(fuse_module, "answer_as_trained", lambda *_, **__: None)  # no tokenizer
        return fuse_checked(
            tmp_path,
            tmp_path,
            tmp_path / "fused",
            fuser.judge,
            dequantize=dequantize,
            trust_remote_code=False,
            progress=lambda _: None,
        )

    return run


def test_quantized_fusion_that_lost_the_adapter_is_repeated_dequantized(fuse):
    fuser = Fuser(0.1, 0.6)
    done = fuse(fuser)
    assert fuser.ways == [False, True]
    assert (done.dequantized, done.lost, done.check.score) == (True, 0.1, 0.6)


def test_quantized_fusion_that_holds_stays(fuse):
    fuser = Fuser(0.6)
    done = fuse(fuser)
    assert (fuser.ways, done.dequantized, done.lost) == ([False], False, None)


def test_dequantized_from_the_start_where_that_is_asked_for(fuse):
    fuser = Fuser(0.6)
    done = fuse(fuser, dequantize=True)
    assert (fuser.ways, done.dequantized, done.lost) == ([True], True, None)


def test_fusion_that_loses_the_adapter_either_way_is_refused(fuse):
    with pytest.raises(
        ExportError, match=r"0\.1000 \(trial.*and dequantized 0\.2000.*lost the adapter"
    ):
        fuse(Fuser(0.1, 0.2))


def test_base_that_is_not_quantized_is_fused_once(fuse):
    fuser = Fuser(0.1)
    with pytest.raises(ExportError, match="fusing lost the adapter"):
        fuse(fuser, quantized=False)
    assert fuser.ways == [False]
    assert not fuse(Fuser(0.6), quantized=False, dequantize=True).dequantized
