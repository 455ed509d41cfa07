"""The embedded base: its architecture and tokenizer, and its training from scratch."""
