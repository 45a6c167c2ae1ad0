"""Processes without torch, or without trackers.

transformers imports torch if it is installed, which takes seconds and 200 MB of memory. Only
hawsweep's embedder process needs it. mlx-lm's trainer imports trackers in the same way.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# Set for workers with a custom metric.
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
    """Hide torch from this process. ``HAWSWEEP_WITH_TORCH=1`` prevents it.

    Call it before transformers is imported: transformers has no switch, but finds no torch if
    ``find_spec`` gives None. ``sys.modules["torch"] = None`` does the same for transformers, but
    libraries that look for torch in ``sys.modules`` (newer releases of scipy) take it for one.
    """
    if "torch" not in sys.modules and not os.environ.get(WITH_TORCH):
        _replace(PathFinder, _WithoutTorch)
        # Else transformers warns that it found no torch.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def let_torch_in() -> None:
    """Show torch again, also to transformers if it was not imported meanwhile."""
    _replace(_WithoutTorch, PathFinder)


def keep_trackers_out() -> None:
    """Hide the trackers that mlx-lm imports where they are installed. Call it before mlx-lm is."""
    for name in ("wandb", "swanlab"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # as the import system has it


def _replace(old: type[PathFinder], new: type[PathFinder]) -> None:
    sys.meta_path[:] = [new if each is old else each for each in sys.meta_path]
