"""Teach a small vision-language model to answer questions about SuperTuxKart frames."""

__version__ = "0.1.0"
