"""Draws what a command leaves on a terminal, as an SVG for the documents.

python tests/pictures/screen.py hawsweep try lr-rank --prompt "Aloha!" > tests/pictures/try.svg
"""

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from record import without_web_font
from rich.console import Console
from rich.text import Text
from screens import Screen

_WIDTH, _HEIGHT = 90, 40


def svg(command: list[str], title: str) -> str:
    """The picture of the last screen of a command."""
    console = Console(file=io.StringIO(), width=_WIDTH, record=True, force_terminal=True)
    with Screen(command, _WIDTH, _HEIGHT) as screen:
        screen.finish()
        console.print(Text.assemble(*screen.styled()), no_wrap=True)
    return without_web_font(console.export_svg(title=title))


if __name__ == "__main__":
    asked = sys.argv[1:]
    print(svg(asked, " ".join([Path(asked[0]).name, *asked[1:3]])))
