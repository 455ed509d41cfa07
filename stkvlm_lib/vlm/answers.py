"""What a model answers, apart from the model: reading it needs none of the libraries that answering does."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """A generated answer and the probability of its tokens together with the stop token."""

    text: str
    confidence: float
