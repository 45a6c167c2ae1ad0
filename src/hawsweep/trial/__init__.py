"""One trial, from settings to score."""
