import json
import struct

import pytest

from hawsweep.dashboard.pictures import loss_curve


def size_of(png):
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def write(path, *lines):
    path.write_text(
        "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
    )
    return path


def test_loss_curve_is_a_png_without_background(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        {"type": "train", "iteration": 10, "train_loss": 3.0},
        {"type": "eval", "iteration": 10, "val_loss": 2.5},
        {"type": "eval", "iteration": 20, "val_loss": 2.0},
    )
    png = loss_curve(path)
    assert size_of(png) == (768, 360)  # 6.4 x 3.0 inches of 120 dots
    color_type = png[25]
    assert color_type == 6  # with an alpha channel


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["{"],
        ["[1]", "null"],
        [{"type": "eval", "iteration": 10, "val_loss": None}],
        [{"type": "eval", "iteration": "x", "val_loss": 1.0}, {"val_loss": 1.0}],
    ],
)
def test_metrics_without_a_point_give_an_empty_picture(tmp_path, lines):
    assert size_of(loss_curve(write(tmp_path / "metrics.jsonl", *lines))) == (768, 360)
