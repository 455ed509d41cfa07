"""The vision-language model: base, packing, answering, adapter, QLoRA, and the embedded base's training."""
