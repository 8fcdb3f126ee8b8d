"""Read YAML 1.2 as plain values, with the line and column of each.

Nothing in it is ever executed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from hessrank.files.paths import readable_file
from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.positions import FilePosition, FilePositions, Path

MAX_BYTES = 1 << 19
MAX_VALUES = 50_000  # aliases of aliases make billions out of ten lines
MAX_DEPTH = 20

_TAG = "tag:yaml.org,2002:"
_TEXTS = {_TAG + name for name in ("str", "timestamp")}  # a date is not one here, but maybe a layer's name
_SCALARS = _TEXTS | {_TAG + name for name in ("int", "float", "bool", "null")}


@dataclass(frozen=True)
class Document:
    """What a YAML file says, and where.

    Attributes:
        data: its keys and values: dictionaries, lists, strings, numbers, booleans and None.
        places: the lines and columns of all of them.
    """

    data: dict[str, Any]
    places: FilePositions


def read_document(path: str | FilePath) -> Document:
    """Read a YAML file of keys and values.

    Keys are names and are taken as they are written (``1.10`` is the layer ``1.10``). Anchors and aliases are
    followed; tags, merge keys and duplicate keys are refused.

    Raises:
        PolicyError: there is no such file, it cannot be read or is no such YAML; with line and column.
    """
    return read_text(_text(FilePath(path)), str(path))


def read_text(text: str, file: str) -> Document:
    """Read the text of such a file; ``file`` is what errors call it.

    Raises:
        PolicyError: it is no YAML of keys and values; with line and column.
    """
    yaml = YAML(typ="safe", pure=True)
    with _one_line_errors(file, text):
        root = yaml.compose(text)
    if root is None:
        raise PolicyError("is empty: a policy has keys such as 'extra_quantizer_dict'", file)
    places = FilePositions(file, {}, {})
    if not isinstance(root, MappingNode):
        raise places.error("is no policy: keys and values are wanted, as 'distill_coeff: [0.7]'", _start(root))
    return Document(_Reader(yaml, places).read(root, ()), places)


def _text(path: FilePath) -> str:
    with readable_file(path, error=PolicyError).open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"is larger than {MAX_BYTES >> 10} KiB, which no policy is", str(path))
    if b"\0" in raw:
        raise PolicyError("is a binary file: a policy is YAML, text in UTF-8", str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _line_and_column(raw.decode("latin-1"), error.start)
        raise PolicyError("is not UTF-8: save it as UTF-8", str(path), line, column) from error


@contextmanager
def _one_line_errors(path: str, text: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor may be used again: YAML says so
            yield
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else ()
        problem = " ".join(str(error.problem or error.context).split())
        raise PolicyError(f"is not YAML: {problem}", path, *place) from error
    except ReaderError as error:
        letter = chr(error.character)
        line, column = _line_and_column(text, text.index(letter))
        raise PolicyError(f"is not YAML: holds the control character {letter!r}", path, line, column) from error
    except (YAMLError, ValueError, AssertionError) as error:
        raise PolicyError(f"is not YAML: {' '.join(str(error).split())}", path) from error
    except RecursionError as error:
        raise PolicyError("is nested too deeply", path) from error


class _Reader:
    """Turns nodes into values and notes where each stands."""

    def __init__(self, yaml: YAML, places: FilePositions) -> None:
        self._yaml, self._places, self._count = yaml, places, 0
        self._keys: dict[Path, FilePosition] = places.keys  # type: ignore[assignment]
        self._values: dict[Path, FilePosition] = places.values  # type: ignore[assignment]

    def read(self, node: Node, path: Path) -> Any:
        """Return the value of ``node``, which lies at ``path``."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._places.error(f"holds more than {MAX_VALUES} values once aliases are followed")
        if len(path) > MAX_DEPTH:
            raise self._places.error("is nested too deeply, or an alias refers to itself", _start(node))
        self._values[path] = _start(node)
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
        if not isinstance(node, ScalarNode) or node.tag not in _SCALARS:
            raise self._places.error(f"{_shown(node)} is refused: a policy holds names and numbers", _start(node))
        return self._scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            name, here = self._name(key), _start(key)
            if name in found:
                first = self._keys[(*path, name)].line
                raise self._places.error(f"{name!r} is there twice, first in line {first}: remove one", here)
            self._keys[(*path, name)] = here
            found[name] = self.read(value, (*path, name))
        return found

    def _name(self, key: Node) -> str:
        if isinstance(key, ScalarNode) and key.tag in _SCALARS - {_TAG + "null"}:
            return self._text(key)
        what = "merge key '<<'" if key.tag == _TAG + "merge" else _shown(key)
        raise self._places.error(f"{what} is refused: keys are names", _start(key))

    def _text(self, node: ScalarNode) -> str:
        text = str(node.value)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._places.error(f"{_shortened(text)!r} holds half a character", _start(node))
        return text

    def _scalar(self, node: ScalarNode) -> Any:
        if node.tag in _TEXTS:
            return self._text(node)
        try:
            return self._yaml.constructor.construct_object(node)
        except (ConstructorError, ValueError) as error:  # `!!int ten`, or a number of five thousand digits
            kind = str(node.tag).removeprefix(_TAG)
            raise self._places.error(f"{_shortened(str(node.value))!r} is no {kind}", _start(node)) from error


def _line_and_column(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _start(node: Node) -> FilePosition:
    return FilePosition(node.start_mark.line + 1, node.start_mark.column + 1)


def _shown(node: Node) -> str:
    tag = str(node.tag)
    if tag in (_TAG + "map", _TAG + "seq"):
        return "a mapping or list"
    if tag == _TAG + "null":
        return "an empty value"
    return "the tag " + repr("!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag)


def _shortened(text: str, at_most: int = 40) -> str:
    return text if len(text) <= at_most else text[:at_most] + "…"
