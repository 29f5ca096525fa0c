"""The model code that runs inside a TorchServe worker; every archive carries its own copy."""
