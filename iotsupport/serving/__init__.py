"""How requests come in and answers go out, without a thread for each client.

``worker`` is gunicorn's worker, with ``connections``, ``collector`` and ``bodies``; ``limits``, ``lanes`` and
``strangers`` say how much is taken from whom, and who waits. ``responses`` makes the one answer for a mirrored file,
which ``quick_requests`` and ``ahead_of_django`` give before Django would. It knows no app.
"""
