from iotsupport.tests.fixtures import directories, transactional_db  # noqa: F401
