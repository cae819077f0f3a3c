"""Where records are kept: tables, the hot statements, reading, the one writer. SQLite and PostgreSQL."""
