"""A trained state put back into a prepared model, every tensor of it or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hessrank.errors import LoadError
from hessrank.files.paths import readable_file
from hessrank.models.match_weights import load_weights
from hessrank.models.pickles import read_pickle
from hessrank.quant.prepare.model import QuantizedModel

_KEYS = ("model", "state_dict")


def load_state(prepared: QuantizedModel, path: str | Path) -> None:
    """Load what ``torch.save(prepared.state_dict(), path)`` saved.

    Bare or under ``model`` or ``state_dict``.

    Args:
        prepared: prepared with the same policy; it is calibrated anew by what is loaded.
        path: the file, read with ``weights_only=True``.

    Raises:
        LoadError: no such file, not a state dict, or keys that are missing, unexpected or of another shape.
        ModelError: a quantizer in the file has other bits, another scheme or method.
    """
    held = read_pickle(readable_file(path, error=LoadError), trust_pickle=False)
    state = next(
        (held[key] for key in _KEYS if isinstance(held, Mapping) and isinstance(held.get(key), Mapping)), held
    )
    if not isinstance(state, Mapping):
        raise LoadError(f"{path}: holds a {type(held).__name__}, not a state dict: save prepared.state_dict()")
    if not any("quantizer" in str(name) for name in state):
        raise LoadError(
            f"{path}: holds no quantizers, so it is no prepared.state_dict(): give it as the model instead"
        )
    load_weights(prepared, state, source=str(path))
    prepared.set_quantizing(True)
