"""Batches: settings x seeds as ordinary runs, gone on with where they stopped, and told apart on one page."""
