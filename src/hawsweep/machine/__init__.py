"""This computer: access to MLX, its memory, its processes."""
