"""What the image runs (``deploy/Dockerfile``): the start of a server, and the question whether it is healthy."""

# What ``manage.py prepare`` exits with where the database does not answer: sysexits(3), "temporary failure".
DATABASE_AWAY = 75
