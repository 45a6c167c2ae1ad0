"""The embedder's process, with letters counted in place of the model ``letters``: importing torch
takes longer than a sweep of the tiny model. With the argument ``alone``, in place of every model.
"""

import sys
import time
from pathlib import Path

import numpy as np

from hawsweep.scoring import embedder_process

LETTERS_DIR = Path(__file__).with_name("letters")
LETTERS = "abcdefghijklmnopqrstuvwxyz "


class Letters:
    """Embeds a text as how often each letter is in it; slowly where a text asks for it."""

    def encode(self, texts, **_):
        time.sleep(2.5 * ("slowly" in texts))
        counts = np.array([[text.lower().count(c) + 0.01 for c in LETTERS] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    load = embedder_process.load_embedder
    embedder_process.load_embedder = lambda path, **options: (
        Letters() if path == LETTERS_DIR or "alone" in sys.argv else load(path, **options)
    )
    embedder_process.main()
