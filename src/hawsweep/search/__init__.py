"""Which setting is tried next. Values in, values out."""
