"""Unit tests: one module at a time, with its real dependencies but without real servers."""
