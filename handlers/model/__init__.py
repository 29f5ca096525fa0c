"""The SimpleTransformer model and its checkpoints."""
