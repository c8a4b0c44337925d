"""What becomes of results: statistics, records, targets, tables, charts and pages."""
