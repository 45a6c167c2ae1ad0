"""Leaving the study: adapters, fused models, cards, uploads, each checked by its answers."""
