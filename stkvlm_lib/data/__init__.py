"""What is on disk: frames and sets of them, read, checked and indexed; the course's zip."""
