"""The vocabulary of Steward: frozen models and ports. Imports nothing of ours from elsewhere."""
