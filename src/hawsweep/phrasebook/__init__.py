"""The phrase book: Hawaiian sentences with their English, in mlx-lm's chat format.

``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` lie beside this file, so that a sweep has data
without a download. :mod:`hawsweep.phrasebook.generate` writes them, out of a lexicon, a grammar and
hand-written phrases.
"""
