"""A model answers everything there is to answer; what it said is written down, and nothing of it is judged here."""
