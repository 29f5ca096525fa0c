"""Tests: unit/ without real servers; integration/ with TorchServe, PostgreSQL and other servers."""
