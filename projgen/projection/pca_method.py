"""The choices and factors of ``method="pca"``: principal components of the activations, one variance threshold."""

from __future__ import annotations

from torch import nn

from projgen.pca.counting import dense_cost
from projgen.pca.discover import Layer
from projgen.pca.neuron_pca import NeuronPCA, explained_share
from projgen.projection.closed_form import pca_factors
from projgen.projection.factors import Factors, dense_weights
from projgen.projection.ranks import Choice, Spectra, pca_cost, threshold_for_reduction, threshold_ranks


class PcaWork:
    """What ``Predictor`` is for the output method."""

    def __init__(self, model: nn.Module, pca: NeuronPCA, layers: list[Layer]) -> None:
        self._model = model
        self._pca = pca
        read, emitted = pca.input_eigenvalues, pca.output_eigenvalues
        self._spectra = [Spectra(layer, read[layer.name], emitted[layer.name]) for layer in layers]

    def for_explained(self, goal: float) -> dict[str, Choice]:
        return threshold_ranks(self._spectra, goal)

    def for_removal(self, removal: int) -> dict[str, Choice]:
        return threshold_ranks(self._spectra, threshold_for_reduction(self._spectra, removal))

    def most_removed(self) -> int:
        chosen = threshold_ranks(self._spectra, 0.0)
        return sum(dense_cost(s.layer) - pca_cost(s.layer, chosen[s.layer.name]) for s in self._spectra)

    def factors(self, layer: Layer, choice: Choice) -> Factors:
        vectors = (self._pca.input_eigenvectors[layer.name], self._pca.output_eigenvectors[layer.name])
        return pca_factors(
            dense_weights(self._model, layer), self._pca.collected.layers[layer.name], vectors, *choice[:2]
        )

    def explained(self, layer: Layer, choice: Choice) -> float:
        kept = (self._pca.input_eigenvalues[layer.name], self._pca.output_eigenvalues[layer.name])
        return min(1.0 if r is None else explained_share(v, r) for v, r in zip(kept, choice[:2], strict=True))
