"""``python -m hawsweep.cli``."""

from hawsweep.cli import main

main()
