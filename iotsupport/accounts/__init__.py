"""Users, their sign-ins, passwords and sessions, and when their API tokens were last used."""
