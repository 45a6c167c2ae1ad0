"""What somebody sees who has no sweep yet: keys, a sweep that was written, a sweep's faults."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hawsweep.reference import Key


def key_picture(key: "Key") -> RenderableType:
    """One key: what it means, what it may be, and how it is written."""
    facts = Table.grid(padding=(0, 3, 0, 0))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    rows = {
        "allowed": _plain(key.allowed),
        "default": "required" if key.is_required else key.default or "not set",
        "known from": _plain(key.source),
        "example": key.example,
        "searched": key.search_example or "cannot be searched",
    }
    for title, value in rows.items():
        if value:
            facts.add_row(title, Text(value))
    return Group(
        Text(key.name, style="bold cyan"),
        Padding(Text(key.meaning), (0, 2)),
        Padding(facts, (0, 2)),
    )


def keys_picture(keys: Sequence["Key"]) -> RenderableType:
    """Keys by their sections."""
    parts: list[RenderableType] = []
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.group, []).append(key)
    for group, found in groups.items():
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="center", style="green")
        table.add_column(no_wrap=True, max_width=24, style="dim")
        table.add_column()
        for key in found:
            default = "required" if key.is_required else key.default
            is_searched = "~" if key.search_example else ""
            name = key.name.removeprefix(f"{group}.")
            table.add_row(f"  {name}", is_searched, Text(default), Text(key.meaning))
        parts += ["", Text(group or "of the sweep itself", style="bold cyan"), table]
    legend = "~ can be searched. In the third column the default. hawsweep explain KEY says more."
    return Group(*parts[1:], "", Text(legend, style="dim"))


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")
