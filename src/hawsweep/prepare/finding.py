"""Findings of an examination: one line for each subject, and its remedy."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One examined subject.

    Attributes:
        subject: Its name, in a word or two.
        state: ``warning``: it works, but not as it could; ``fault``: it does not work.
        text: The result in words.
        remedy: What to do; empty if nothing is wrong.
    """

    subject: str
    state: State
    text: str
    remedy: str = ""

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> State:
    """The worst state among the findings."""
    states = {each.state for each in findings}
    return "fault" if "fault" in states else "warning" if "warning" in states else "ok"
