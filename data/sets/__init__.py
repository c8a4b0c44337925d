"""One module a dataset, and where its files come from."""
