"""Django's backend for PostgreSQL, for a server that nobody may wait for without end; named in the settings."""
