"""The proof: one training with the engine and with fit, compared bit by bit."""
