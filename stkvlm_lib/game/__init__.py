"""The game as a source of frames: races planned, rendered in worker processes, with exact truth."""
