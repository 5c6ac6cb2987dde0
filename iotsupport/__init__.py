"""IoT Support. Its version stands here alone: pyproject.toml, commands, pages and metrics read it here."""

__version__ = "0.1.0"
