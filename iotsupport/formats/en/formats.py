"""Dates as logs have them: sortable, short, and with the time zone, which may not be the reader's."""

DATETIME_FORMAT = "Y-m-d H:i T"
