"""What a view shows, and what can be asked of it: scenes, families of questions, captions."""
