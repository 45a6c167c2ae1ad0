"""The cache of this user, for a test in an environment of its own."""

import shutil
import time
from pathlib import Path

_SETTLED_S = 10.0


def copy_settled(source, target):
    """Copy a folder of the cache, if it is there, without what another process may be writing."""

    def is_written(path):
        try:
            return path.is_file() and time.time() - path.stat().st_mtime < _SETTLED_S
        except FileNotFoundError:
            return True

    def ignored(folder, names):
        return [name for name in names if name[0] == "~" or is_written(Path(folder, name))]

    if Path(source).is_dir():
        shutil.copytree(source, target, ignore=ignored)
