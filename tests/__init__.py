"""The tests: unit/ in one process, integration/ with a real TorchServe."""
