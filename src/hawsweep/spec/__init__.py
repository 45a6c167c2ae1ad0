"""What a sweep file may say. No Optuna, no MLX, no machine."""
