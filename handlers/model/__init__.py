"""The SimpleTransformer and its checkpoints."""
