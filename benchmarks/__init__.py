"""Benchmarks: ratios of things measured alternately in one run. ``python -m benchmarks --help``."""
