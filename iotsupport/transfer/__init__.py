"""What goes out and comes in as many files at once: directories and zips."""
