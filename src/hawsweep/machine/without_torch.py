"""Processes without torch.

transformers imports torch wherever it finds it, which takes seconds and 200 MB of memory, and of
hawsweep's own processes only the embedder's has a use for it.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# Set for workers whose metric is a file of one's own.
WITH_TORCH = "HAWSWEEP_WITH_TORCH"


class _WithoutTorch(PathFinder):
    """Finds what is on ``sys.path``, but torch."""

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


def keep_torch_out() -> None:
    """Have nothing in this process find torch; ``HAWSWEEP_WITH_TORCH=1`` prevents it.

    To be called before transformers is imported: that has no switch, but sees no torch where
    ``find_spec`` gives None. ``sys.modules["torch"] = None`` does the same for transformers, but
    libraries that look for torch in ``sys.modules`` (newer releases of scipy) take it for one.
    """
    if "torch" not in sys.modules and not os.environ.get(WITH_TORCH):
        _replace(PathFinder, _WithoutTorch)
        # transformers would say that it found none.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def let_torch_in() -> None:
    """Have torch found again, also by transformers where that was not imported meanwhile."""
    _replace(_WithoutTorch, PathFinder)


def _replace(old: type[PathFinder], new: type[PathFinder]) -> None:
    sys.meta_path[:] = [new if each is old else each for each in sys.meta_path]
