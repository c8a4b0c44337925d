"""Arms for the tests of the harness: NumPy alone, and each with a fault of its own."""
