"""This computer: the door to MLX, how much memory there is, which processes live."""
