"""One LoRA run. It uses neither Optuna nor a study."""
