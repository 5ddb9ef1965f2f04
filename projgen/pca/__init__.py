"""Streaming second moments of a network's activations and the principal components made of them."""
