"""Leaving the study: adapters, fused models, GGUF, cards, uploads, each checked by its answers."""
