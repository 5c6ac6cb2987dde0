from iotsupport.tests.support.first_version import first_version, updated  # noqa: F401
from iotsupport.tests.support.fixtures import *  # noqa: F403
