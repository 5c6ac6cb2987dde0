"""Who is it: users, their sign-ins, passwords and sessions, and when their tokens were last used."""
