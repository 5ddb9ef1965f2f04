"""What quantising a model did and found besides its integers; saved with the model, and no part of its hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any, Final

from projgen.quant.dead_channels import RemovedChannels
from projgen.quant.equalise import Equalised
from projgen.quant.loss import Int8Loss


@dataclass(frozen=True, slots=True)
class Notes:
    """For the reader alone.

    Attributes:
        removed_channels: what was taken out without changing a byte, by layer.
        equalised: low-rank intermediates whose components were brought to more equal ranges.
        int8_loss: what the integers lose against the floats, where that was measured.
    """

    removed_channels: tuple[RemovedChannels, ...] = ()
    equalised: tuple[Equalised, ...] = ()
    int8_loss: Int8Loss | None = None

    def to_json(self) -> dict[str, Any]:
        """What there is to say, as plain values."""
        said = {
            "removed_channels": [astuple(r) for r in self.removed_channels],
            "equalised": [astuple(e) for e in self.equalised],
            "int8_loss": None if self.int8_loss is None else asdict(self.int8_loss),
        }
        return {key: entry for key, entry in said.items() if entry}

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Notes:
        """The notes of ``to_json``; other keys are ignored."""
        removed = tuple(RemovedChannels(str(n), int(r), int(t)) for n, r, t in found.get("removed_channels", ()))
        equalised = tuple(Equalised(str(n), str(z), float(gain)) for n, z, gain in found.get("equalised", ()))
        loss = found.get("int8_loss")
        return Notes(removed, equalised, None if loss is None else Int8Loss(**loss))


NONE: Final = Notes()
