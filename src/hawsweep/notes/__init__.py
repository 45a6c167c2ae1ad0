"""Notes and links for optuna-dashboard, written into the database while a sweep runs."""
