"""The names of a study's files and folders."""

SPEC_FILE = "spec.yaml"  # the sweep, in a study's folder
METRICS_FILE = "metrics.jsonl"
LOG_FILE = "log.txt"
STATE_FILE = "state.safetensors"
# The hash of the archive that a trial's folder was put into, or came from.
ARCHIVE_MARK = "archive.sha256"
# The best adapter, and the kept checkpoints: folders in mlx-lm's format.
ADAPTER_DIR = "adapters"
CHECKPOINT_DIR = "checkpoints"
WEIGHTS_FILE = "adapters.safetensors"
CONFIG_FILE = "adapter_config.json"

CONFIRM_SUFFIX = ".confirm"
# Files with answers to the validation prompts, in a study's folder ``base`` or a trial's folder.
# For the test split the names begin with ``test_``, for questions of retention with ``retention_``.
SAMPLE_FILES = {
    "base": "samples.jsonl",
    "few_shot": "few_shot_samples.jsonl",
    "trial": "samples.jsonl",
}


LOSSES_FILE = "valid_losses.npy"
# A person's judgments of translations, in a study's folder.
REVIEW_FILE = "review.jsonl"
