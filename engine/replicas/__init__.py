"""What several replicas do alike with fit, and what they do right where fit is wrong."""
