"""What the spine does when things break around it."""
