"""Front ends that turn other formats into ordinary PyTorch modules."""
