"""Answers against references: metrics, the embedder, intervals, the self-check. Knows no study."""
