"""Sweep files: keys, checks, search space. No Optuna, no MLX, no machine."""
