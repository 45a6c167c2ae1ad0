"""An Optuna study and its trials, as kept in the database and the study's folder.

Runs nothing and shows nothing.
"""
