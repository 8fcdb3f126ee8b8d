"""The sections of a policy: defaults, and what is named.

Their keys are those of MQBench's ``prepare_custom_config_dict``, so one file serves both. What a file leaves out
has the default that is written here, not that of an MQBench backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag, model_validator

from hessrank.quant.policy.errors import MisfitError
from hessrank.quant.policy.fields import ActivationWidth, Bits, Keys, Method, Names, Observer, WeightWidth
from hessrank.quant.policy.validation import UNION_TAGS
from hessrank.quant.scheme import Scheme


class WeightScheme(Keys):
    """The bits and grid of every weight that is not named."""

    bit: Bits = 8
    symmetry: bool = False
    per_channel: bool = True
    pot_scale: bool = False

    @property
    def scheme(self) -> Scheme:
        """The same as a Scheme."""
        return Scheme(self.bit, self.per_channel, self.symmetry, self.pot_scale)


class ActivationScheme(WeightScheme):
    """The bits and grid of every activation that is not named."""

    per_channel: bool = Field(default=False, json_schema_extra={"const": False})

    @model_validator(mode="after")
    def _per_tensor(self) -> ActivationScheme:
        if self.per_channel:
            problem = (
                "a_qscheme: no integer kernel has a scale per channel of an activation; write per_channel: false"
            )
            raise MisfitError(problem, "per_channel")
        return self


class QConfig(Keys):
    """MQBench's ``extra_qconfig_dict``: schemes, observers and methods of what is not named."""

    w_qscheme: WeightScheme = WeightScheme()
    a_qscheme: ActivationScheme = ActivationScheme()
    w_observer: Observer = "minmax"
    a_observer: Observer = "minmax"
    w_fakequantize: Method = "fixed"
    a_fakequantize: Method = "fixed"


class LayerBits(Keys):
    """One layer's own bits: ``10``, ``10 symmetric`` or ``10 per_channel_affine``; None as the others'."""

    weight: WeightWidth | None = None
    activation: ActivationWidth | None = None


Entry = Annotated[
    Annotated[LayerBits, Tag(UNION_TAGS[0])] | Annotated[ActivationWidth, Tag(UNION_TAGS[1])],
    Discriminator(lambda value: UNION_TAGS[0 if isinstance(value, Mapping | LayerBits) else 1]),
]


class QuantizerConfig(Keys):
    """MQBench's ``extra_quantizer_dict``.

    Attributes:
        special_layer: by layer; a bare width is an input's, of all of them for ``input_layer``.
        exclude_module_name: layers that stay in float; the name of a module that holds others stands for all
            of them, as in MQBench.
        exclude_node_name: layers that stay in float.
    """

    special_layer: dict[str, Entry] = Field(default_factory=dict)
    exclude_module_name: Names = ()
    exclude_node_name: Names = ()
