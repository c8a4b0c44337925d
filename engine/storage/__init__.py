"""What a run writes: checkpoints, metrics, figures."""
