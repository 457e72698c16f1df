"""Benchmarks: each case against a named comparator, measured in the same run.

``python -m benchmarks [MODULE ...]`` prints one JSON line per case. Figures are medians of
interleaved rounds; quote ratios, since the machine's own speed drifts.
"""
