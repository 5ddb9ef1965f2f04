"""Projection: factored layers, the factorisations that fill them, ranks for a goal, and analysis."""
