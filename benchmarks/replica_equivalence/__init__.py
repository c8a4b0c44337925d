"""Trains on the same global batches at several counts of replicas and workers, and compares."""
