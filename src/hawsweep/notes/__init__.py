"""What is written into the database for optuna-dashboard while a sweep runs. Text and links."""
