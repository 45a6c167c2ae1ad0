"""The processes of a sweep: start, supervisor, workers, and their status for other processes."""
