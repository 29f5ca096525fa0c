"""Runs the TorchServe process and calls its APIs."""
