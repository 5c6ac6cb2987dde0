"""Trying it out: ``make run`` and ``make demo``."""
