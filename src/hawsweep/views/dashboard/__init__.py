"""optuna-dashboard, served on this machine only."""
