"""The command ``hawsweep``, with letters counted in place of the model ``letters``; if the variable
``LETTERS_ALONE`` is set, in place of every embedder.
"""

import os
import sys
from pathlib import Path

from hawsweep.cli import run
from hawsweep.scoring import embedder_process

COMMAND = (sys.executable, __file__)

if __name__ == "__main__":
    fake = Path(__file__).with_name("fake_embedder.py")
    alone = ["alone"] if os.environ.get("LETTERS_ALONE") else []
    embedder_process._COMMAND = (sys.executable, str(fake), *alone)
    run()
