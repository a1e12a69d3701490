"""Benchmarks: what the network costs and how quick it is, beside going without it."""
