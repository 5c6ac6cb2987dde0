from iotsupport.tests.support.fixtures import *  # noqa: F403
