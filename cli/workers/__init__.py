"""`--num_workers N`: worker processes on this machine, started, watched and started again.

Nothing here imports TensorFlow, and the workers do not know of it: they find `TF_CONFIG` in their
environment, as on a cluster.
"""
