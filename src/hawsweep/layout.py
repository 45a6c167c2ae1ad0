"""What files and folders of a study are called."""

METRICS_FILE = "metrics.jsonl"
LOG_FILE = "log.txt"
STATE_FILE = "state.safetensors"
# The best adapter, and those kept to compare: folders as mlx-lm reads them.
ADAPTER_DIR = "adapters"
CHECKPOINT_DIR = "checkpoints"
WEIGHTS_FILE = "adapters.safetensors"
CONFIG_FILE = "adapter_config.json"

CONFIRM_SUFFIX = ".confirm"
# Names of what answered the validation prompts, in a study's folder ``base`` or a trial's; those of
# the test split have ``test_`` before them.
SAMPLE_FILES = {
    "base": "samples.jsonl",
    "few_shot": "few_shot_samples.jsonl",
    "trial": "samples.jsonl",
}


LOSSES_FILE = "valid_losses.npy"
