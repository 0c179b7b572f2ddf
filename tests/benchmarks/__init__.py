"""Benchmarks that anyone can run again: ``python -m tests.benchmarks [NAME...] [--smoke]``."""
