"""The model code that runs inside a TorchServe worker; every archive contains a copy."""
