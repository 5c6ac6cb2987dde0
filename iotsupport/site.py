"""The admin's site, where every app registers its models."""

from __future__ import annotations

from iotsupport.lookups import OfferedLookupsSite


class Site(OfferedLookupsSite):
    site_url = None  # there is no other site than this one
    site_header = site_title = "IoT Support"
    index_title = "Devices and their files"
