"""One module per dataset, and the code that downloads, verifies and caches their files."""
