"""Deploys model versions, rolls them back, and restores them after a restart of TorchServe."""
