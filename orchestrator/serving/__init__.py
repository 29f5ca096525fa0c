"""TorchServe: its process and its APIs."""
