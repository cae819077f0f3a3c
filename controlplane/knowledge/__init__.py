"""What is known, and what it means: for now, the embedding of texts."""
