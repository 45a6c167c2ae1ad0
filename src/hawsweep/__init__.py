"""Hyperparameter sweeps for LoRA fine-tuning with MLX."""

__version__ = "0.1.0"
