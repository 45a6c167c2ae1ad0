"""A reference becomes records, records become tokens, tokens become batches."""
