"""The mesh against a model, and under disturbance."""
