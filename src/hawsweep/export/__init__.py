"""Exports: adapter, fused model, card, upload, each checked by its answers."""
