"""Redaction of texts that leave the machine: its folders and a database's passwords."""

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
    """Redacts texts about the studies at a place.

    Args:
        home: The home folder of the user.
        here: The base folder of relative paths.
    """

    place: Place
    home: Path = field(default_factory=Path.home)
    here: Path = field(default_factory=Path.cwd)

    def __call__(self, text: str) -> str:
        """The redacted text. Of another folder only the last name stays, after ``…/``."""
        if self.place.storage_url is not None:
            text = without_secrets(text, self.place.storage_url)
        text = _CREDENTIALS.sub("***@", text)
        for folder, name in ((self.here, ""), (self.home, "~")):
            if len(folder.parts) > 1:
                inside = f"{name}/" if name else ""
                text = text.replace(f"{folder}/", inside)
        return _PATH.sub(lambda found: f"…/{found[1]}", text)
