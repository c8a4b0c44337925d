"""Several worker processes: who they are, what they tell one another, and what each takes."""
