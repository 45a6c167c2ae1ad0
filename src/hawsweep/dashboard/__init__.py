"""optuna-dashboard over the studies: notes, files and plots, and who may see them."""
