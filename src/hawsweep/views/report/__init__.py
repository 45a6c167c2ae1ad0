"""A study as one page that needs nothing from elsewhere."""
