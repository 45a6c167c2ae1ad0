"""The processes of a sweep: start, supervisor, workers, and what others see of them."""
