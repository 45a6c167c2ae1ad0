"""The results of a study, computed from its numbers. Returns values; formats nothing."""
