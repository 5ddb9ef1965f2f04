"""What quantising a model did and found besides its integers; saved with the model, and no part of its hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

from projgen.quant.dead_channels import RemovedChannels
from projgen.quant.equalise import Equalised


@dataclass(frozen=True, slots=True)
class Notes:
    """For the reader alone.

    Attributes:
        removed_channels: what was taken out without changing a byte, by layer.
        equalised: low-rank intermediates whose components were brought to more equal ranges.
    """

    removed_channels: tuple[RemovedChannels, ...] = ()
    equalised: tuple[Equalised, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What there is to say, as plain values."""
        said = {
            "removed_channels": [astuple(r) for r in self.removed_channels],
            "equalised": [astuple(e) for e in self.equalised],
        }
        return {key: records for key, records in said.items() if records}

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Notes:
        """The notes of ``to_json``; other keys are ignored."""
        removed = tuple(RemovedChannels(str(n), int(r), int(t)) for n, r, t in found.get("removed_channels", ()))
        equalised = tuple(Equalised(str(n), str(z), float(gain)) for n, z, gain in found.get("equalised", ()))
        return Notes(removed, equalised)


NONE: Final = Notes()
