"""The peak of models in 4 and 16 bits, as a GPU has them, computed by the CPU."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

from hawsweep.machine.backend import mx, nn

import pytest

from hawsweep.models.shape import shape_of
from hawsweep.planning.calibration import fit
from hawsweep.planning.measured_steps import Observation, Point, measure_step
from hawsweep.planning.peak import COEFFICIENTS, Execution, Step, training_peak

QUANTIZATION = {"group_size": 64, "bits": 4}
SIZES = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "intermediate_size": 768,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1000,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
SLIDING = {"sliding_window": 64, "sliding_window_pattern": 2, "query_pre_attn_scalar": 64}
# The order in which this CPU frees arrays, with values of 16 bits.
COEFFICIENTS_16 = replace(COEFFICIENTS["cpu"], value_bytes=2)


@pytest.mark.parametrize(
    ("architecture", "more", "is_checkpointed"),
    [("llama", {}, False), ("qwen3", {}, True), ("gemma3_text", SLIDING, False)],
)
def test_peak_with_all_projections_adapted_is_predicted_within_10_percent(
    architecture, more, is_checkpointed
):
    config = {"model_type": architecture, **SIZES, **more}
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, **QUANTIZATION)
    mx.eval(model.parameters())
    point = Point(Step(2, 96, 96), -1, 8, Execution(2, is_checkpointed, 64))
    shape = shape_of({**config, "quantization": QUANTIZATION})
    predicted = training_peak(
        shape, point.train(), point.step, point.execution, COEFFICIENTS_16
    ).total
    assert predicted == pytest.approx(measure_step(model, point)["peak_bytes"], rel=0.1)


def test_calibrated_peaks_are_within_what_the_documents_say(monkeypatch):
    """Of a llama of 4 blocks, compiled, all projections adapted; each step measured by
    ``measure_step``: those of a calibration, and seven others.
    """
    recorded = json.loads(Path(__file__).with_name("peaks_4bit_bf16.json").read_text())
    monkeypatch.setitem(COEFFICIENTS, "cpu", COEFFICIENTS_16)
    shape = shape_of({**recorded["config"], "quantization": QUANTIZATION})
    observed, others = (
        [Observation.of(each) for each in recorded[name]] for name in ("calibration", "held_out")
    )
    fitted, residuals = fit(shape, "cpu", observed)
    assert max(abs(each.error) for each in residuals) < 0.05
    for each in others:
        peak = training_peak(shape, each.train, each.step, each.execution, fitted).total
        assert peak == pytest.approx(each.peak_bytes, rel=0.085)
