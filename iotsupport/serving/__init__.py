"""How requests come in and answers go out, without a thread for each client.

``worker`` is gunicorn's worker, with ``connections``, ``collector`` and ``bodies``; ``lanes`` and ``strangers`` say who
waits; how much is taken from whom is in ``iotsupport.limits``. ``downloads`` says where a kind of file is,
``responses`` makes the one answer for a file, and ``quick_requests`` and ``ahead_of_django`` give it before Django
would. This room knows no app.
"""
