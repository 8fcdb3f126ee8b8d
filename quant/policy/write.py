"""Write a policy as YAML that people read.

A reason behind each line, short lists on one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from hessrank.files.atomic_write import written_whole
from hessrank.quant.policy.sections import QConfig, QuantizerConfig

INDENT = 2
WIDTH = 110  # of a list on one line
COMMENT_COLUMN = 60  # no comment is pushed further right to be aligned with the others


class WritablePolicy(Protocol):
    """The keys of a policy file; :class:`hessrank.Policy` has them."""

    @property
    def extra_qconfig_dict(self) -> QConfig:
        """The defaults."""
        ...

    @property
    def extra_quantizer_dict(self) -> QuantizerConfig:
        """What is named."""
        ...

    @property
    def output_layer_list(self) -> Sequence[str]:
        """The network's outputs."""
        ...

    @property
    def distill_config(self) -> Sequence[str]:
        """The layers to distill."""
        ...

    @property
    def distill_coeff(self) -> Sequence[float]:
        """How strongly."""
        ...


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def policy_text(policy: WritablePolicy, reasons: Mapping[str, str], header: str = "") -> str:
    """Return a policy as YAML, which reads back as the same policy.

    Args:
        policy: what to write; keys with default values are left out, except for the two schemes.
        reasons: comments by layer or key.
        header: the comment at the top.
    """
    root = CommentedMap()
    root["extra_qconfig_dict"] = _defaults(policy.extra_qconfig_dict, reasons)
    named = _named(policy.extra_quantizer_dict, reasons)
    if named:
        root["extra_quantizer_dict"] = named
    for key in ("output_layer_list", "distill_config", "distill_coeff"):
        if getattr(policy, key):
            root[key] = _listed(getattr(policy, key), key)
    _explain(root, reasons, depth=0)
    return "".join(f"# {_one_line(line)}\n" for line in header.splitlines()) + _dumped(root)


def _defaults(qconfig: QConfig, reasons: Mapping[str, str]) -> CommentedMap:
    found = CommentedMap()
    for key, value in qconfig.model_dump().items():
        if isinstance(value, dict):
            found[key] = CommentedMap(value)
            found[key].fa.set_flow_style()
        elif value != QConfig.model_fields[key].default:
            found[key] = value
    _explain(found, reasons, depth=1)
    return found


def _named(config: QuantizerConfig, reasons: Mapping[str, str]) -> CommentedMap:
    found = CommentedMap()
    if config.special_layer:
        layers = CommentedMap()
        for name, entry in config.special_layer.items():
            widths = {} if isinstance(entry, str) else entry.model_dump(exclude_none=True)
            parts = CommentedMap((part, _width(width)) for part, width in widths.items())
            layers[name] = _width(entry) if isinstance(entry, str) else parts
        _explain(layers, reasons, depth=2)
        found["special_layer"] = layers
    for key in ("exclude_module_name", "exclude_node_name"):
        if getattr(config, key):
            found[key] = _listed(getattr(config, key), key)
    _explain(found, reasons, depth=1)
    return found


def _width(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _listed(items: Iterable[Any], key: str) -> CommentedSeq:
    found = CommentedSeq(items)
    if len(key) + sum(len(repr(item)) + 2 for item in found) <= WIDTH:
        found.fa.set_flow_style()
    return found


def _explain(mapping: CommentedMap, reasons: Mapping[str, str], depth: int) -> None:
    """Put the reasons behind the keys, in one column."""
    column = max((_end(key, value) for key, value in mapping.items() if key in reasons), default=0) + depth * INDENT
    for key in mapping:
        text = _one_line(reasons.get(key, ""))
        if text:
            mapping.yaml_add_eol_comment(text, key, column=min(column + 2, COMMENT_COLUMN))


def _end(key: str, value: Any) -> int:
    """Return about where the line of a key ends, counted from its start."""
    block = isinstance(value, CommentedMap | CommentedSeq) and not value.fa.flow_style()
    return len(key) + 1 + (0 if block else len(str(value)) + 1)


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


class _Representer(RoundTripRepresenter):
    """Writes text in double quotes if it holds what is not printed.

    The other styles take that for line breaks.
    """

    def represent_text(self, text: str) -> ScalarNode:
        """Return the node of a string."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Representer.add_representer(str, _Representer.represent_text)


def _dumped(root: CommentedMap) -> str:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = 1 << 20  # no value is broken
    yaml.allow_unicode = True
    stream = StringIO()
    yaml.dump(root, stream)
    return stream.getvalue()
