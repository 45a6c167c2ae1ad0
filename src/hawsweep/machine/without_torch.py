"""Processes without torch.

transformers imports torch if it is installed, which takes seconds and 200 MB of memory. Only
hawsweep's embedder process needs it.
"""

import os
import sys

# Set for workers with a custom metric.
WITH_TORCH = "HAWSWEEP_WITH_TORCH"


def keep_torch_out() -> None:
    """Hide torch from this process. ``HAWSWEEP_WITH_TORCH=1`` prevents it.

    Call it before transformers is imported: transformers has no switch, but finds no torch if
    ``find_spec`` gives None.
    """
    if "torch" not in sys.modules and not os.environ.get(WITH_TORCH):
        sys.modules["torch"] = None  # type: ignore[assignment]
        # Else transformers warns that it found no torch.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def let_torch_in() -> None:
    """Show torch again, also to transformers if it was not imported meanwhile."""
    if "torch" in sys.modules and sys.modules["torch"] is None:
        del sys.modules["torch"]
