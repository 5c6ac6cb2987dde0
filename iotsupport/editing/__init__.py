"""What keeps people's work in the admin: text that could not be saved, versions, deletions and taking them back."""
