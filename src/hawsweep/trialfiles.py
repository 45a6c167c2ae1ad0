"""What files in a trial's folder are called; for those too who are not to load MLX for it."""

METRICS_FILE = "metrics.jsonl"
LOG_FILE = "log.txt"
STATE_FILE = "state.safetensors"
# The best adapter, and those kept to compare: folders as mlx-lm reads them.
ADAPTER_DIR = "adapters"
CHECKPOINT_DIR = "checkpoints"
WEIGHTS_FILE = "adapters.safetensors"
CONFIG_FILE = "adapter_config.json"
