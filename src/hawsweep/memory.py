"""What memory there is."""

import platform

import psutil

from hawsweep import backend

# Left to the rest of the machine.
_RESERVE_SHARE = 0.1


def available_bytes() -> int:
    """What a trial may take now: free memory less a reserve and, on a Mac, no more than its GPU may wire."""
    free = int(psutil.virtual_memory().available * (1 - _RESERVE_SHARE))
    if platform.system() == "Darwin":
        recommended = backend.recommended_bytes()
        return min(free, recommended) if recommended else free
    return free
