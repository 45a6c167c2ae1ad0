"""A sweep for somebody's data and machine: what ``hawsweep init`` writes."""
