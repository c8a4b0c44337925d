"""What TensorFlow's profiler recorded of some steps: the trace, its summary, text and picture."""
