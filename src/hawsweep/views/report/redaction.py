"""Texts that leave the machine: without its folders, nor a database's passwords."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from hawsweep.study.credentials import without_secrets
from hawsweep.study.place import Place

# An absolute path of two parts or more, not one within a word, an address or a relative path.
_PATH = re.compile(
    r"(?<![\w/:.~…*)\]-])/(?:[^\s/'\"`:,;()<>\[\]{}|]+/)+([^\s/'\"`:,;()<>\[\]{}|]*)"
)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]*@")


@dataclass(frozen=True)
class Redaction:
    """What is taken out of texts about the studies at a place.

    Args:
        home: Of whoever made them.
        here: The folder relative paths are relative to.
    """

    place: Place
    home: Path = field(default_factory=Path.home)
    here: Path = field(default_factory=Path.cwd)

    def __call__(self, text: str) -> str:
        """The text; of a folder elsewhere on this machine its last name is left, after ``…/``."""
        if self.place.storage_url is not None:
            text = without_secrets(text, self.place.storage_url)
        text = _CREDENTIALS.sub("***@", text)
        for folder, name in ((self.here, ""), (self.home, "~")):
            if len(folder.parts) > 1:
                inside = f"{name}/" if name else ""
                text = text.replace(f"{folder}/", inside)
        return _PATH.sub(lambda found: f"…/{found[1]}", text)
