"""Benchmarks: how fast the engine is, on the same work and with the same bits as fit."""
