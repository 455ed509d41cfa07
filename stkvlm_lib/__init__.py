"""Teach a small vision-language model to answer questions about SuperTuxKart frames."""

import logging
import warnings

__version__ = "0.1.0"

# Two notices of libraries that ask nothing of the user: bitsandbytes looks for an optional package (which would ask a
# hub at import), and PEFT calls a property of transformers under its older name.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
