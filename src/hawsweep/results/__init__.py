"""What a study's numbers say. Returns values; formats nothing."""
