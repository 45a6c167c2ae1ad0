"""One LoRA run. Knows no Optuna and no study."""
