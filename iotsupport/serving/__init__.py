"""How requests come in and answers go out, without a thread for each client.

``worker`` is gunicorn's worker, with ``connections``, ``collector`` and ``bodies``; ``limits``, ``lanes`` and
``strangers`` say how much is taken from whom, and who waits. ``downloads`` says where a kind of file is, ``responses``
makes the one answer for a file, and ``quick_requests`` and ``ahead_of_django`` give it before Django would. This room
knows no app.
"""
