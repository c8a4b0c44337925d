"""The proof: the same training with the engine and with fit, compared bit by bit."""
