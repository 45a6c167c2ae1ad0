"""The bundled data set: Hawaiian phrases and their English, as three JSONL files.

No speaker of Hawaiian has reviewed it.
"""
