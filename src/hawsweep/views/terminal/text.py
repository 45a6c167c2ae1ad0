"""The texts that terminals show, and the console that prints them.

Whatever a text quotes, it stays text: control characters and line breaks in it are written out.
What stands on a line of its own is a part of a ``Group``, a row, or a ``print`` by itself.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.style import StyleType
from rich.text import Text as RichText

from hawsweep.machine.output import visible_output
from hawsweep.text import visible, visible_line


class Text(RichText):
    """A text without line breaks of its own."""

    def __init__(self, text: str = "", *args: Any, **kwargs: Any) -> None:
        super().__init__(visible_line(text), *args, **kwargs)

    def append(self, text: RichText | str, style: StyleType | None = None) -> "Text":
        """Add a text to the end."""
        super().append(visible_line(text) if isinstance(text, str) else text, style)
        return self

    @classmethod
    def assemble(cls, *parts: Any, **kwargs: Any) -> "Text":
        """A text of several, with their styles."""
        return cast(Text, super().assemble(*parts, **kwargs))

    @classmethod
    def from_markup(cls, text: str, **kwargs: Any) -> "Text":
        """A text by rich's markup; escape what is quoted in it."""
        return cls().append(super().from_markup(visible_line(text), **kwargs))


def fit_line(line: Text, width: int, between: str = " ") -> Text:
    """A text cut before the first part that does not fit; only a part wider than all is cut itself.

    Args:
        between: What stands between two parts.
    """
    line.no_wrap, line.overflow = True, "ellipsis"
    if line.cell_len <= width:
        return line
    ends = [found.start() for found in re.finditer(re.escape(between), line.plain)]
    fitting = [end for end in ends if 0 < cell_len(line.plain[:end]) <= width - 2]
    if fitting:
        return cast(Text, line[: fitting[-1]]).append(" …")
    line.truncate(width, overflow="ellipsis")
    return line


class Status:
    """A text beside a turning sign."""

    def __init__(self, text: str) -> None:
        self.spinner = Spinner("dots", Text(text), style="status.spinner")

    def update(self, text: str = "") -> None:
        """Show another text; without one, what is shown stays."""
        self.spinner.update(text=Text(text))


class Console(RichConsole):
    """A console that writes no control character but those of its own styles and pictures."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of a renderable: the one way by which all texts come to be printed."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else visible(segment.text)
            yield segment if shown == segment.text else segment._replace(text=shown)

    def render_str(self, text: str, **kwargs: Any) -> RichText:
        """A string as text."""
        return super().render_str(visible_line(text), **kwargs)

    def say(self, text: str, *, soft_wrap: bool = False) -> None:
        """Print a text as it is: without markup, and with no colours for numbers and names."""
        self.print(text, markup=False, highlight=False, soft_wrap=soft_wrap)

    @contextmanager
    def status(self, text: str) -> Iterator[Status]:  # type: ignore[override]
        """Show a text beside a turning sign meanwhile; nothing without a terminal."""
        status = Status(text)
        with (
            Live(status.spinner, console=self, refresh_per_second=12.5, transient=True),
            visible_output(),  # what is printed meanwhile goes through the console
        ):
            yield status
