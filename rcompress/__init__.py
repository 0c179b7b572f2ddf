"""rcompress: make ResNets small and fast, and say honestly by how much."""

__version__ = "0.1.0"
