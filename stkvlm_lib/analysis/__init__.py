"""What the answers of a run are worth: a module a subject, with its figures, its table, its chart and its words."""
