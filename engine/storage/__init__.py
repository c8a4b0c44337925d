"""What is written: checkpoints, metrics, figures."""
