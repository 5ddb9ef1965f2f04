"""Levels side by side: one neuron PCA, many compression levels and methods in parallel, a table and a Pareto plot."""

from projgen.explore.levels import DENSE, Level, parse_levels
from projgen.explore.records import Exploration, LevelResult
from projgen.explore.run import explore

__all__ = ["DENSE", "Exploration", "Level", "LevelResult", "explore", "parse_levels"]
