"""The operations pipeline, on both databases."""
