"""Questions made, balanced, checked and written; what is drawn for training."""
