"""System tests that take minutes; each has a make target."""
