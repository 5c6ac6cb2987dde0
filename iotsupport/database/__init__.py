"""What is particular about each database: SQLite's files, and a PostgreSQL that may be slow, frozen or away."""
