"""The policy; the file's keys are its fields.

Bits by layer, what stays in float, what to distill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import PrivateAttr, model_validator

from hessrank.quant.policy.errors import MisfitError, PolicyError
from hessrank.quant.policy.fields import Coefficients, Keys, Names
from hessrank.quant.policy.own_code import NOTHING, OWN_WORDS, Plugins
from hessrank.quant.policy.positions import FilePosition, FilePositions, Origin
from hessrank.quant.policy.read import Document, read_document
from hessrank.quant.policy.sections import LayerBits, QConfig, QuantizerConfig
from hessrank.quant.policy.validation import refuse_unknown_keys, validated
from hessrank.quant.policy.vocabulary import holder_keys
from hessrank.quant.policy.write import policy_text, write_text
from hessrank.quant.scheme import Scheme

INPUT_LAYER = "input_layer"  # in special_layer: all inputs of the network
_SPECIAL = ("extra_quantizer_dict", "special_layer")
Part = Literal["weight", "activation"]

_parsed = lru_cache(maxsize=1024)(Scheme.parse)


class Policy(Keys):
    """Bits by layer and what to distill.

    Attributes:
        extra_qconfig_dict: what is not named.
        extra_quantizer_dict: what is named, and what stays in float.
        output_layer_list: layers whose activations training takes out; empty for those of ``distill_config``.
        distill_config: layers to distill.
        distill_coeff: their coefficients in the loss, as many.

    Example:
        What is named has its own bits, all else those of the defaults:

        >>> import hessrank
        >>> policy = hessrank.Policy.of({"extra_quantizer_dict": {"special_layer": {"head": {"weight": 4}}}})
        >>> str(policy.weight_scheme("head")), str(policy.weight_scheme("body"))
        ('4 per_channel_affine', '8 per_channel_affine')
    """

    extra_qconfig_dict: QConfig = QConfig()
    extra_quantizer_dict: QuantizerConfig = QuantizerConfig()
    output_layer_list: Names = ()
    distill_config: Names = ()
    distill_coeff: Coefficients = ()
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @model_validator(mode="after")
    def _lists_agree(self) -> Policy:
        layers, numbers, outputs = self.distill_config, self.distill_coeff, self.output_layer_list
        if len(layers) != len(numbers):
            blame = "distill_coeff" if numbers else "distill_config"
            problem = f"distill_coeff holds {len(numbers)} and distill_config {len(layers)}: give each layer one"
            raise MisfitError(problem, blame)
        for index, layer in enumerate(layers):
            if Counter(layers[: index + 1])[layer] > 1:
                raise MisfitError(f"{layer!r} is to be distilled twice: remove one", "distill_config", index)
            if outputs and layer not in outputs:
                problem = f"{layer!r} is to be distilled but is not in output_layer_list: add it there"
                raise MisfitError(problem, "distill_config", index)
        return self

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        plugins: Iterable[str] | Plugins = NOTHING,
        beside: Collection[str] | None = None,
    ) -> Policy:
        """Read a policy file.

        Args:
            path: a YAML file.
            plugins: methods and observers of your own that the file may name: ``file.py:Class``, from the current
                folder, or ``pkg.module:Class``. Without them nothing but hessrank's own is taken on a file's word.
            beside: other keys that the file may have; they are not looked into. None: those of the files that may
                hold a policy, as a training's run file may.

        Raises:
            PolicyError: one line, as ``policy.yaml:11:5: no key named 'wieght'; nearest is 'weight'``.
        """
        return cls.part_of(read_document(path), plugins=plugins, beside=beside)

    @classmethod
    def part_of(
        cls,
        document: Document,
        *,
        plugins: Iterable[str] | Plugins = NOTHING,
        beside: Collection[str] | None = None,
    ) -> Policy:
        """Read the policy in a document that has been read already.

        Otherwise as ``read``.
        """
        places = document.places
        allowed = Plugins.of(plugins).beside(places.file)
        others = holder_keys() if beside is None else beside
        refuse_unknown_keys(document.data, [*cls.model_fields, *others], places)
        own = {key: value for key, value in document.data.items() if key in cls.model_fields}
        policy = validated(cls, own, places, allowed)
        policy._origin = Origin(places, plugins=allowed)
        return policy

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Policy:
        """Make a policy of plain values, the same that a file holds.

        Methods and observers may be code of your own.

        Raises:
            PolicyError: something does not fit.
        """
        return cls.part_of(Document(dict(data), FilePositions()), plugins=OWN_WORDS)

    @property
    def layers(self) -> Mapping[str, LayerBits | str]:
        """The entries of ``special_layer``, a bare width as text."""
        return self.extra_quantizer_dict.special_layer

    @property
    def named_activations(self) -> dict[str, Scheme]:
        """Schemes of the activations that have an entry of their own.

        ``input_layer`` is among them.
        """
        widths = {name: bits if isinstance(bits, str) else bits.activation for name, bits in self.layers.items()}
        default = self.extra_qconfig_dict.a_qscheme.scheme
        return {name: _parsed(width, default) for name, width in widths.items() if width is not None}

    @property
    def named_weights(self) -> dict[str, Scheme]:
        """Schemes of the weights that have an entry of their own, by layer."""
        widths = {name: None if isinstance(bits, str) else bits.weight for name, bits in self.layers.items()}
        default = self.extra_qconfig_dict.w_qscheme.scheme
        return {name: _parsed(width, default) for name, width in widths.items() if width is not None}

    @property
    def input_scheme(self) -> Scheme | None:
        """The scheme of ``input_layer``; None without one."""
        return self.named_activations.get(INPUT_LAYER)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Names of what stays in float, as they are written.

        ``excluded_layers`` says which layers they are.
        """
        lists = self.extra_quantizer_dict
        return (*lists.exclude_module_name, *lists.exclude_node_name)

    @property
    def weight_method(self) -> str:
        """The method that fake-quantizes weights.

        Code of your own is named as it is found from the current folder.
        """
        return self._found(self.extra_qconfig_dict.w_fakequantize)

    @property
    def weight_observer(self) -> str:
        """The observer that finds the range of weights, likewise."""
        return self._found(self.extra_qconfig_dict.w_observer)

    @property
    def activation_method(self) -> str:
        """The method that fake-quantizes activations, likewise."""
        return self._found(self.extra_qconfig_dict.a_fakequantize)

    @property
    def activation_observer(self) -> str:
        """The observer that finds the range of activations, likewise."""
        return self._found(self.extra_qconfig_dict.a_observer)

    def _found(self, name: str) -> str:
        return (self._origin.plugins.find(name) if ":" in name else None) or name

    def weight_scheme(self, *layers: str) -> Scheme:
        """Return the scheme of a weight that ``layers`` multiply with.

        Raises:
            PolicyError: two of them are named with different schemes.
        """
        default = self.extra_qconfig_dict.w_qscheme.scheme
        return self._agreed("weight", self.named_weights, layers, default)

    def activation_scheme(self, *layers: str) -> Scheme:
        """Return the scheme of a grid that ``layers`` share.

        Raises:
            PolicyError: two of them are named with different schemes.
        """
        default = self.extra_qconfig_dict.a_qscheme.scheme
        return self._agreed("activation", self.named_activations, layers, default)

    def _agreed(self, part: Part, named: Mapping[str, Scheme], layers: Collection[str], default: Scheme) -> Scheme:
        of_these = [name for name in layers if name in named]
        for name in of_these[1:]:
            if named[name] != named[of_these[0]]:
                what = "one weight" if part == "weight" else "one grid"
                raise self.contradiction(part, of_these[0], name, f"they share {what}")
        return named[of_these[0]] if of_these else default

    def contradiction(self, part: Part, first: str, second: str, why: str) -> PolicyError:
        """Return the error of two entries that cannot both be obeyed, at the later one."""
        named = self.named_weights if part == "weight" else self.named_activations
        here, there = self.position(second, part), self.position(first, part)
        if here and there and here < there:
            first, second, here, there = second, first, there, here
        line = f" in line {there.line}" if there else ""
        problem = (
            f"{second!r} has {named[second]}, but {first!r}{line} has {named[first]}, and {why}: give both the same"
        )
        return self.error(problem, here)

    def position(self, layer: str, part: Part | None = None) -> FilePosition | None:
        """Return where the file names ``layer``; None without a file.

        Or, given a ``part``, where it gives that.
        """
        places = self._origin.places
        return places.key(*_SPECIAL, layer) if part is None else places.value(*_SPECIAL, layer, part)

    def place(self, *path: str | int) -> FilePosition | None:
        """Return where the value at ``path`` from the root stands; None without a file."""
        return self._origin.places.value(*path)

    def error(self, problem: str, place: FilePosition | None) -> PolicyError:
        """Return an error in this policy's file."""
        return self._origin.places.error(problem, place)

    def with_reasons(self, reasons: Mapping[str, str], header: str = "") -> Policy:
        """Return the same policy with a comment for each line.

        Args:
            reasons: by layer, or by key for lists and defaults (``distill_config``, ``w_qscheme``).
            header: the first line.
        """
        copy = self.model_copy()
        copy._origin = replace(self._origin, reasons=dict(reasons), header=header)
        return copy

    def with_plugins_of(self, other: Policy) -> Policy:
        """Return the same policy, which also finds the code that ``other`` finds.

        That is, code of the user's own.
        """
        copy = self.model_copy()
        copy._origin = replace(self._origin, plugins=self._origin.plugins.and_those_of(other._origin.plugins))
        return copy

    def write(self, path: str | Path, reasons: Mapping[str, str] | None = None) -> None:
        """Write the policy as YAML, whole or not at all.

        Args:
            path: where to.
            reasons: comments, as in ``with_reasons``; left out, those the policy carries.

        Raises:
            OutputError: the file cannot be written.
        """
        text = policy_text(self, self._origin.reasons if reasons is None else reasons, self._origin.header)
        write_text(path, text)

    def __str__(self) -> str:
        return policy_text(self, self._origin.reasons, self._origin.header).rstrip("\n")
