"""The keys of the user attributes of studies and trials.

Bytes end in ``_BYTES``, seconds in ``_S``. The database holds the strings: they stay as they are.
"""

# Of a study: what it was made with and is asked to do.

# The sweep without how it runs, and ``fingerprints`` of data, models and metric.
SPEC = "spec"
# The keys of the sweep that may change between starts, as the last start had them.
HOW = "how"
DESCRIPTION = "description"
# Of each relative path that names a model or data: the same from the folder of studies.
PATHS = "paths"
# Scores known from elsewhere, by name.
REFERENCES = "references"
# Versions of packages that it was made with, by name.
VERSIONS = "versions"
# The date for chat templates that ask the clock, as 2026-11-27.
DATE = "date"
# The last starts: time (seconds since 1970), host, versions, commit.
STARTS = "starts"
# By which another process asks the supervisor to stop: 1 after the current evaluation, 2 now.
STOP = "stop"
# The process that leads the study among all machines, and a counter; see ``leases``.
SUPERVISOR = "supervisor"
# Of the confirming study: how these begin whose turn it is to ask for a trial.
TURN = "turn:"
# What `hawsweep extend` set: of ``trials`` and ``timeout`` the start's value and the new one.
EXTENDED = "extended"
# The URL of the store in which trials' files travel; None: they stay where they were made.
ARTIFACTS = "artifacts"
# Random: by it the ids of its runs in trackers differ from those of another study of its name.
REPORT_ID = "report_id"

# Of a study: what it measured.

# The untuned model, alone and with another prompt, such as one with examples: loss, score, seconds.
BASE, FEW_SHOT = "base", "few_shot"
# In the latter: all prompts that it was chosen from, with their scores on the validation prompts.
TRIED = "tried"
# The measurements of several untuned models, each by its reference; see ``baselines``.
BASES = "bases"
# The metric's scale, and what its prompts can tell apart.
SELF_CHECK = "self_check"
# The scores on the test split, of which trial, and how often the split was opened.
TEST = "test"
# Of which trial and which questions the answers were last kept; see ``trials.misses_retention``.
RETENTION = "retention"
# How often the split was opened: written before its first prompt is answered. Earlier versions
# counted with the scores only; see ``trials.n_test_opened``.
TEST_OPENED = "test_opened"
# The best trials with new seeds, best first; see ``confirm``.
CONFIRMED = "confirm"
# By `prefer: cheap`: the trial to use, and `of`, the best one, from which it is not told apart.
CHOSEN = "chosen"
# By which predicted activations are multiplied, after trials that ran out of memory.
MEMORY_FACTOR = "memory_factor"

# Of a trial: where it comes from.

# What proposed its settings, where that was not the sampler; ``BY_YOU`` by `hawsweep enqueue`.
SUGGESTED_BY, BY_YOU = "suggested_by", "you"
# The number of the trial whose settings are queued again.
REPEATS = "repeats"
# The kind of fault after which it is tried once more.
RETRIED_AFTER = "retried_after"
# What its plan must stay below, after a plan of so many bytes ran out of memory.
BELOW_BYTES = "below_bytes"
# Of a confirming trial: the number of the trial with the same settings, and the new seed.
CONFIRMS, SEED = "confirms", "seed"
# True while it waits because it was interrupted: it goes on, before all others. False afterwards.
INTERRUPTED = "interrupted"
# The trial's iterations where `hawsweep extend --trial` gave it more than its settings have.
ITERS = "iters"
# True once `hawsweep stop --trial` asked for its end.
STOPPED = "stopped"
# The trial, and the iteration, from which its training went on.
CONTINUES = "continues"

# Of a trial: how it runs and ends.

# The process that runs it: see ``processes.identity``; ``parent`` is its supervisor's.
WORKER = "worker"
# A counter that its worker raises; see ``leases``.
LEASE = "lease"
# How it is executed: micro-batch and so on, ``peak_bytes`` as predicted, and ``text``.
PLAN = "plan"
# Why it ended before its time, in words; and the kind of fault that ended it.
REASON, FAULT = "reason", "fault"
# True of a trial that does not fit into memory.
INFEASIBLE = "infeasible"
# From start to end; of that training, evaluations, and answering the validation prompts.
TIME_S = "time_s"
TRAIN_TIME_S, EVAL_TIME_S, SCORE_TIME_S = "train_time_s", "eval_time_s", "score_time_s"
TOKENS_PER_S = "tokens_per_s"
# As measured.
PEAK_MEMORY_BYTES = "peak_memory_bytes"
FOOTPRINT_BYTES = "footprint_bytes"
# The archive of its folder in the store: ``id``, ``sha256`` and ``bytes``; see ``travel``.
ARTIFACT = "artifact"
# Of the best adapter's file.
ADAPTER_BYTES = "adapter_bytes"

# Of a trial: what it reached. The keys of ``Score.summary`` stand beside these.

# Of the best evaluation: nats per token, and per byte of text where several models are compared.
VAL_LOSS, NATS_PER_BYTE = "val_loss", "nats_per_byte"
# In a study of several models: the factor from its validation loss to its intermediate values,
# which is tokens in the loss per byte of text.
TARGETS_PER_BYTE = "targets_per_byte"
BEST_ITERATION = "best_iteration"
# With the best adapter, per token: of the validation split, and of its prompts' references.
PERPLEXITY, REFERENCE_PERPLEXITY = "perplexity", "reference_perplexity"
# How many answers are empty, cut and so on, by ``metrics.FAULTS``.
FAULTS = "faults"

# No user attribute: the constraint's name, in GB above the budget. A trial is feasible at 0, in
# Optuna's words.
MEMORY_CONSTRAINT = "memory"
SMALLEST_VIOLATION = 1e-3
