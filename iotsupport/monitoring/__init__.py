"""Health, metrics and the log: strangers ask for them and cause them, so all of it is bounded."""
