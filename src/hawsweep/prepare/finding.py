"""What an examination finds: one line for each thing looked at, and what to do about it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """Something that was looked at.

    Attributes:
        subject: What it was, in a word or two.
        state: ``warning``: it works, but not as it could; ``fault``: it does not work.
        text: What was found.
        remedy: What to do; empty where all is well.
    """

    subject: str
    state: State
    text: str
    remedy: str = ""

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> State:
    """The state of them all."""
    states = {each.state for each in findings}
    return "fault" if "fault" in states else "warning" if "warning" in states else "ok"
