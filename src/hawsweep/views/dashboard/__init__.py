"""optuna-dashboard, served on this machine alone."""
