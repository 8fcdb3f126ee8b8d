"""Bring MQBench in, or say plainly that it is not there.

Whatever the release of torch.

MQBench (https://github.com/ModelTC/MQBench) imports ``torch.onnx._type_utils``, which later releases of
torch keep elsewhere; training needs nothing else that moved.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from hessrank.errors import HessrankError, unknown_name
from hessrank.text import first_line

INSTALL = "git clone https://github.com/ModelTC/MQBench && pip install ./MQBench"
_MOVED = "torch.onnx._internal.torchscript_exporter._type_utils"


class MQBenchError(HessrankError):
    """MQBench is missing, does not import, or cannot do what the policy asks."""


@dataclass(frozen=True)
class Library:
    """What is used of MQBench.

    Attributes:
        prepare: ``prepare_by_platform``.
        platforms: ``BackendType``, the platforms whose rules say where quantizers go.
        scheme: ``QuantizeScheme``.
        base: the class of all its fake-quantizers.
        fake_quantizers: its fake-quantizers by the names of their classes.
        observers: its observers by the names of their classes.
        embedding: its embedding with a weight fake-quantizer of any scheme; torch's takes one scheme only.
        state: the module that switches calibration and quantization on and off.
        logger: where it says what it does.
    """

    prepare: Any
    platforms: Any
    scheme: Any
    base: type[nn.Module]
    fake_quantizers: dict[str, Any]
    observers: dict[str, Any]
    embedding: type[nn.Module]
    state: Any
    logger: logging.Logger

    def platform(self, name: str) -> Any:
        """Return the ``BackendType`` called ``name``.

        Raises:
            UnknownNameError: there is no such platform; the nearest are listed.
        """
        known = {platform.name: platform for platform in self.platforms}
        if name not in known:
            raise unknown_name("MQBench platform", name, known)
        return known[name]

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Keep MQBench from printing a line for everything it inserts.

        And torch from calling it deprecated.
        """
        level = self.logger.level
        self.logger.setLevel(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                yield
        finally:
            self.logger.setLevel(level)


def load_mqbench() -> Library:
    """Import MQBench.

    Raises:
        MQBenchError: it is not installed, or its import fails; the message says how to install it, or why.
    """
    if importlib.util.find_spec("mqbench") is None:
        raise MQBenchError(f"mqbench is not installed: {INSTALL}")
    give_moved_name_back()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _library()
    except Exception as error:  # whatever its modules raise on this torch
        why = f"{type(error).__name__}: {first_line(error)}"
        raise MQBenchError(f"mqbench is installed, but its import fails with {why}") from error


def _library() -> Library:
    prepare = importlib.import_module("mqbench.prepare_by_platform")
    return Library(
        prepare=prepare.prepare_by_platform,
        platforms=prepare.BackendType,
        scheme=importlib.import_module("mqbench.scheme").QuantizeScheme,
        base=importlib.import_module("mqbench.fake_quantize.quantize_base").QuantizeBase,
        fake_quantizers=prepare.FakeQuantizeDict,
        observers=prepare.ObserverDict,
        embedding=importlib.import_module("mqbench.nn.qat.modules.embedding").Embedding,
        state=importlib.import_module("mqbench.utils.state"),
        logger=importlib.import_module("mqbench.utils.logger").logger,
    )


def give_moved_name_back() -> None:
    """Let ``from torch.onnx import _type_utils`` work.

    Where torch has moved it; otherwise change nothing.
    """
    onnx: Any = importlib.import_module("torch.onnx")
    if hasattr(onnx, "_type_utils") or importlib.util.find_spec("torch.onnx._type_utils") is not None:
        return
    if importlib.util.find_spec(_MOVED) is not None:
        onnx._type_utils = importlib.import_module(_MOVED)
