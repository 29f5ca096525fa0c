"""Which versions of the model serve, and how that changes."""
