"""Tests of one module at a time, with its real parts and no server."""
