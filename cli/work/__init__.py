"""What is trained: a model, its loss, metrics, optimizer, step and hooks, as settings name them."""
