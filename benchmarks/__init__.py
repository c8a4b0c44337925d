"""Benchmarks: how fast the engine is, against `keras.Model.fit` on the same work with the same bits."""
