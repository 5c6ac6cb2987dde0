"""How this server and what it depends on are, in words, and what to do: the page of the admin, and system checks."""
