"""Laws of the design, as properties on the real store."""
