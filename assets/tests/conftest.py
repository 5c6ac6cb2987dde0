from iotsupport.tests.fixtures import *  # noqa: F403
