"""The report of a study as one page that works without a network."""
