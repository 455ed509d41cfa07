"""The explorer: a widget on frames, questions, answers and a model."""
