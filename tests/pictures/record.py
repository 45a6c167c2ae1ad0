"""Records the live picture of a sweep that runs, as an SVG for the README.

python tests/pictures/record.py STUDIES_DIR NAME N_FINISHED > tests/pictures/terminal.svg

It waits until so many trials are finished and every worker has evaluated its trial.
"""

import io
import sys
import time
from pathlib import Path

from rich.console import Console

from hawsweep.running.progress import SweepState, read_progress
from hawsweep.views.terminal.progress import RunningPicture

_WIDTH = 130
_POLL_S = 1.0


def main() -> None:
    """Wait, and print the SVG."""
    folder, n_finished = Path(sys.argv[1]) / sys.argv[2], int(sys.argv[3])
    while (state := read_progress(folder)) is None or not _is_worth_it(state, n_finished):
        time.sleep(_POLL_S)
    print(svg(state, time.time()))


def _is_worth_it(state: SweepState, n_finished: int) -> bool:
    return state.finished >= n_finished and all(len(each.curve) > 1 for each in state.workers)


def svg(state: SweepState, now: float) -> str:
    """The picture of a state."""
    console = Console(file=io.StringIO(), width=_WIDTH, height=40, record=True, force_terminal=True)
    console.print(RunningPicture(state, with_events=True, now=now))
    return without_web_font(console.export_svg(title=f"hawsweep start {state.name}"))


def without_web_font(drawn: str) -> str:
    """A picture of rich's without the font that it would have a browser fetch."""
    before, _, rest = drawn.partition("@font-face")
    _, _, after = rest.rpartition("font-weight: 700;\n    }")
    return before + after.lstrip() if after else drawn


if __name__ == "__main__":
    main()
