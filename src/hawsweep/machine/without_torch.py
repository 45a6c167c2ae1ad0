"""Processes without torch.

transformers imports torch wherever it finds it, which takes seconds and 200 MB of memory, and of
hawsweep's own processes only the embedder's has a use for it.
"""

import os
import sys

# Set for workers whose metric is a file of one's own.
WITH_TORCH = "HAWSWEEP_WITH_TORCH"


def keep_torch_out() -> None:
    """Have nothing in this process find torch; ``HAWSWEEP_WITH_TORCH=1`` prevents it.

    To be called before transformers is imported: that has no switch, but sees no torch where
    ``find_spec`` gives None.
    """
    if "torch" not in sys.modules and not os.environ.get(WITH_TORCH):
        sys.modules["torch"] = None  # type: ignore[assignment]
        # transformers would say that it found none.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def let_torch_in() -> None:
    """Have torch found again, also by transformers where that was not imported meanwhile."""
    if "torch" in sys.modules and sys.modules["torch"] is None:
        del sys.modules["torch"]
