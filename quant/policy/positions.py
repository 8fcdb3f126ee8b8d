"""Where in a file something stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.own_code import OWN_WORDS, Plugins

Path = tuple[str | int, ...]


class FilePosition(NamedTuple):
    """A line and a column, both from 1."""

    line: int
    column: int


class PositionElsewhere(FilePosition):
    """A place in another file than the rest.

    Attributes:
        file: its name.
    """

    file: str

    @classmethod
    def of(cls, place: FilePosition, file: str) -> PositionElsewhere:
        """Return ``place`` as one in ``file``; one that is elsewhere already stays there."""
        found = cls(*place)
        found.file = getattr(place, "file", file)
        return found


@dataclass(frozen=True)
class FilePositions:
    """The places of all keys and values of one file.

    Attributes:
        file: its name, as it was given; empty when there is none.
        keys: by path from the root, as ``("extra_quantizer_dict", "special_layer", "conv1")``.
        values: by path likewise; list items have their index as the last step.
    """

    file: str = ""
    keys: Mapping[Path, FilePosition] = field(default_factory=dict)
    values: Mapping[Path, FilePosition] = field(default_factory=dict)

    def known(self, path: Path) -> Path:
        """Return ``path`` without the steps that the file does not have."""
        found: Path = ()
        for step in path:
            if (*found, step) in self.values:
                found = (*found, step)
        return found

    def key(self, *path: str | int) -> FilePosition | None:
        """Return where a key stands, or the nearest thing around it."""
        return self.keys.get(self.known(path), self.value(*path))

    def value(self, *path: str | int) -> FilePosition | None:
        """Return where a value starts, or the nearest thing around it."""
        return self.values.get(self.known(path))

    def error(self, problem: str, place: FilePosition | None = None) -> PolicyError:
        """Return the error of ``problem`` at ``place``."""
        if place is None:
            return PolicyError(problem, self.file)
        return PolicyError(problem, getattr(place, "file", self.file), *place)

    def over(self, other: FilePositions) -> FilePositions:
        """Return the places of both files.

        A key at the root of this one stands instead of the other's.
        """
        own = {path[0] for path in self.values if path}

        def merged(
            mine: Mapping[Path, FilePosition], theirs: Mapping[Path, FilePosition]
        ) -> dict[Path, FilePosition]:
            foreign = {path: place for path, place in theirs.items() if path and path[0] not in own}
            kept = {path: PositionElsewhere.of(place, other.file) for path, place in foreign.items()}
            return {**kept, **mine}

        return FilePositions(self.file, merged(self.keys, other.keys), merged(self.values, other.values))

    def below(self, key: str) -> FilePositions:
        """Return the places of what lies below a key at the root."""

        def cut(places: Mapping[Path, FilePosition]) -> dict[Path, FilePosition]:
            return {path[1:]: place for path, place in places.items() if path[:1] == (key,)}

        return FilePositions(self.file, cut(self.keys), cut(self.values))


@dataclass(frozen=True)
class Origin:
    """Where a policy comes from and why it says what it says.

    In this, equal policies may differ.

    Attributes:
        places: of its file.
        reasons: comments by layer or key.
        header: the comment at the top.
        plugins: where the code that it names is found.
    """

    places: FilePositions = field(default_factory=FilePositions, compare=False)
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)
    header: str = field(default="", compare=False)
    plugins: Plugins = field(default=OWN_WORDS, compare=False)
