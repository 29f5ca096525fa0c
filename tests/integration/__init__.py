"""Tests with a real TorchServe."""
