"""Schema fuzzing: the document is the promise, and random input and random walks look for where it is broken."""
