"""The benchmarks as a command: what is chosen, what fails, what is written."""
