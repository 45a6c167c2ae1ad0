"""The cache of this user, for a test in an environment of its own."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

_SETTLED_S = 10.0


def copy_settled(source, target):
    """Copy a folder of the cache, if it is there, without what another process may be writing, and
    without sockets, which lie there too.
    """

    def is_settled(path):
        try:
            is_old = time.time() - path.stat().st_mtime > _SETTLED_S
            return (path.is_dir() and not path.name.startswith(("tmp", "hawsweep-"))) or (
                path.is_file() and is_old
            )
        except FileNotFoundError:
            return False

    def ignored(folder, names):
        return [name for name in names if name[0] == "~" or not is_settled(Path(folder, name))]

    def copy_if_there(source, target):
        with suppress(FileNotFoundError):  # another process removed it meanwhile
            shutil.copy2(source, target)

    if Path(source).is_dir():
        shutil.copytree(source, target, ignore=ignored, copy_function=copy_if_there)
