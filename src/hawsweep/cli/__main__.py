"""``python -m hawsweep.cli``."""

from hawsweep.cli import run

run()
