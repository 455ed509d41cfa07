"""Frames, questions and training as pictures and charts: what notebooks 01 to 03 show."""
