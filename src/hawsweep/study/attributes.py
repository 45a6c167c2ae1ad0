"""The keys of the user attributes of studies and trials."""

# The study's attribute with the measurements of several untuned models; see baselines.
BASES = "bases"
# The study's attribute by which another process asks the supervisor to stop: how urgently.
STOP = "stop"


# The study's attribute by which predicted activations are multiplied, after trials that ran out.
MEMORY_FACTOR = "memory_factor"
# The constraint's name, in GB above the budget: a trial is feasible at 0, in Optuna's words.
MEMORY_CONSTRAINT = "memory"
SMALLEST_VIOLATION = 1e-3
# A trial's attribute in a study of several models: the factor from its validation loss to its
# intermediate values, which is tokens in the loss per byte of text.
TARGETS_PER_BYTE = "targets_per_byte"


# Attributes of a confirming trial: the trial with the same settings, and the new seed.
CONFIRMS, SEED = "confirms", "seed"
# The study's attribute that holds the outcome.
OUTCOME = "confirm"
