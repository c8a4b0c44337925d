"""What of a setup does not go together, before the first step."""
