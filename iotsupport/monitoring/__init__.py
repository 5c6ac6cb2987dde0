"""What is watched: health, metrics and the log; asked for by strangers, so all of it bounded."""
