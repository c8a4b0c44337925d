"""`--mode sweep`: runs in turn over values of settings, each with its own TensorFlow."""
