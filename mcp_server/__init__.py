"""The catalogue as MCP."""
