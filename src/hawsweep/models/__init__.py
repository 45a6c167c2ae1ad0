"""A reference becomes a folder, a folder a loaded model, a config a shape. No data, no training."""
