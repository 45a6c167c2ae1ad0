"""The keys of a study's and a trial's user attributes, each once."""

# The study's attribute with what was measured of several untuned models; see baselines.
BASES = "bases"
# The study's attribute by which another process asks the supervisor to stop: how urgently.
STOP = "stop"


# The study's attribute by which predicted activations are multiplied, after trials that ran out.
MEMORY_FACTOR = "memory_factor"
# The constraint's name, in GB above the budget: a trial is feasible at 0, in Optuna's words.
MEMORY_CONSTRAINT = "memory"
SMALLEST_VIOLATION = 1e-3
# A trial's attribute where several models are compared: what its validation loss was multiplied by
# to be its intermediate values, tokens that count per byte of text.
TARGETS_PER_BYTE = "targets_per_byte"


# What a confirming trial carries: the trial whose settings it has, and its seed.
CONFIRMS, SEED = "confirms", "seed"
# The study's attribute that holds the outcome.
OUTCOME = "confirm"
