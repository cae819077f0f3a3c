"""What is known, and what it means."""
