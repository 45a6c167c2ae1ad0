"""Against what mlx-lm took on a Mac, the only measurements on Metal there are.

Measured on an M1 Ultra: mlx_lm.lora with gemma-3-4b-it-4bit, 16 layers, rank 8 on the query and
value projections, Adam, no masking, the loss over all logits at once.

The lengths that went through it are not known. Assumed: texts as long, relative to their mean, as
those of the data set the measurements are thought to be of (2,264 pairs of Fornander's collection,
counted in characters), with a mean of 350 tokens, since it trained 350 tokens a second at one
iteration of one pair a second. Of those lengths the expected longest of 20 drawn without
replacement is 934 (5 to 95 %: 566 to 1,397), of 200 1,384 (1,099 to 1,764) and of 2,000 1,745
(1,614 to 1,764). mlx-lm pads to multiples of 32, sorts by length and learns from each place of the
padded batch. None of these numbers was chosen by a peak.
"""

import pytest

from hawsweep.catalogue import KNOWN_MODELS
from hawsweep.peak import COEFFICIENTS, Execution, Step, training_peak
from hawsweep.shapes import shape_of
from hawsweep.trainspec import TrainSpec

LONGEST_OF = {20: 934, 200: 1384, 2000: 1745}
# Batch size, checkpointing, pairs that it saw, measured bytes.
MEASURED = {
    "batch 2, 20 pairs": (2, False, 20, 7.532e9),
    "batch 1, 200 iterations": (1, True, 200, 6.101e9),
    "batch 1, 2,000 iterations": (1, True, 2000, 6.335e9),
}
TOO_HIGH = pytest.mark.xfail(strict=True, reason="predicted too high for the lengths assumed")


def predicted(rows, width, is_checkpointed):
    train = TrainSpec.model_validate(
        {
            "batch_size": rows,
            "num_layers": 16,
            "grad_checkpoint": is_checkpointed,
            "lora_parameters": {"rank": 8, "keys": ["self_attn.q_proj", "self_attn.v_proj"]},
        }
    )
    shape = shape_of(KNOWN_MODELS["mlx-community/gemma-3-4b-it-4bit"])
    step, execution = Step(rows, width, rows * width), Execution(rows, is_checkpointed, None)
    return training_peak(shape, train, step, execution, COEFFICIENTS["metal"]).total


def predicted_for(name):
    rows, is_checkpointed, n_seen, measured = MEASURED[name]
    width = -(-LONGEST_OF[n_seen] // 32) * 32
    return predicted(rows, width, is_checkpointed), measured


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("batch 2, 20 pairs", marks=TOO_HIGH),  # 13.90 GB
        "batch 1, 200 iterations",  # 6.88 GB
        pytest.param("batch 1, 2,000 iterations", marks=TOO_HIGH),  # 8.04 GB
    ],
)
def test_peak_is_predicted_within_15_percent(name):
    expected, measured = predicted_for(name)
    assert expected == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", MEASURED)
def test_peak_is_not_predicted_too_low(name):
    expected, measured = predicted_for(name)
    assert expected >= measured


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("batch 2, 20 pairs", 448),
        ("batch 1, 200 iterations", 1184),
        ("batch 1, 2,000 iterations", 1248),
    ],
)
def test_some_length_that_such_texts_have_explains_each_peak(name, width):
    # These widths are chosen by the peaks. They are possible, and grow with the pairs seen; that
    # they were the real ones is not shown.
    rows, is_checkpointed, _, measured = MEASURED[name]
    assert predicted(rows, width, is_checkpointed) == pytest.approx(measured, rel=0.02)
    assert width <= LONGEST_OF[2000]
