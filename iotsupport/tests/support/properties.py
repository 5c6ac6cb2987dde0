"""How properties are tested with many made-up values."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from iotsupport.tests.support.databases import DATABASE

# One value takes longer than a fifth of a second, and making up ten of them longer than a second, where others keep
# the machine busy: Hypothesis would call either a failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# As well for a database or directory that all values of a test share: each leaves it as it found it.
PATIENT_WITH_FIXTURES = settings(
    PATIENT, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def examples(number: int) -> int:
    """How many values to try: on PostgreSQL fewer, since most of what they find is in no database."""
    return number if DATABASE == "sqlite" else number // 4
