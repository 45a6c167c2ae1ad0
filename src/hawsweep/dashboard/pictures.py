"""Pictures of trials."""

import io
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_INK = "#7a808a"
_INCHES, _DOTS_PER_INCH = (6.4, 3.0), 120
_one_at_a_time = threading.Lock()  # matplotlib's fonts are shared by all figures


def loss_curve(metrics_path: Path) -> bytes:
    """A trial's training and validation loss by iteration, as PNG without a background.

    Args:
        metrics_path: Its ``metrics.jsonl``; a trial may be writing it.

    Raises:
        OSError: It cannot be read.
    """
    from matplotlib.figure import Figure

    # Readable on white and on the dashboard's dark grey alike.
    from hawsweep.figurestyle import BEST, COMPLETE, PRUNED

    lines = list(_lines(metrics_path))
    trained, evaluated = _points(lines, "train_loss"), _points(lines, "val_loss")
    with _one_at_a_time:
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        if trained:
            axes.plot(
                *zip(*trained, strict=True), color=PRUNED, lw=1.2, marker=".", label="training"
            )
        if evaluated:
            axes.plot(*zip(*evaluated, strict=True), "o-", color=COMPLETE, lw=2, ms=4)
            axes.lines[-1].set_label("validation")
            iteration, loss = min(evaluated, key=lambda point: (point[1], point[0]))
            axes.plot(iteration, loss, "o", color=BEST, ms=8, label=f"best: {loss:.3f}")
        _dress(axes)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=_DOTS_PER_INCH, transparent=True)
    return written.getvalue()


def _dress(axes: Any) -> None:
    axes.set_xlabel("iteration", color=_INK)
    axes.set_ylabel("loss (nats per token)", color=_INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(colors=_INK)
    axes.grid(color=_INK, alpha=0.25, lw=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    if axes.lines:
        axes.legend(frameon=False, labelcolor=_INK)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue  # it is just being written
        if isinstance(found, dict):
            yield found


def _points(lines: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """What can be drawn of one loss: a diverged one is null."""
    return [
        (line["iteration"], line[key])
        for line in lines
        if isinstance(line.get("iteration"), int)
        and isinstance(line.get(key), int | float)
        and math.isfinite(line[key])
    ]
