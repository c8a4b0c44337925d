"""The settings of the command line, by what they are about. Without TensorFlow."""
