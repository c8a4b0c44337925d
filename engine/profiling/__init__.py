"""What TensorFlow's profiler saw in some steps: the trace, its summary, text and picture."""
