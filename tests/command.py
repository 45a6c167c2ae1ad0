"""The command ``hawsweep``, with letters counted in place of the model ``letters``."""

import sys
from pathlib import Path

from hawsweep.cli import run
from hawsweep.scoring import embedder_process

COMMAND = (sys.executable, __file__)

if __name__ == "__main__":
    fake = Path(__file__).with_name("fake_embedder.py")
    embedder_process._COMMAND = (sys.executable, str(fake))
    run()
