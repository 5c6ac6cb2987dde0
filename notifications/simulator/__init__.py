"""Devices that behave as good firmware does: ``manage.py simulate_devices``."""
