"""Builds a network by the code that ``--arch`` names."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from torch import nn

from hessrank.errors import LoadError, OptionError
from hessrank.models.wrappers import copy_network, take_out
from hessrank.out_of_memory import is_out_of_memory
from hessrank.plugins import import_attribute
from hessrank.text import one_line, printable
from hessrank.user_code import user_code

Architecture = str | nn.Module | Callable[..., nn.Module]

_Network = TypeVar("_Network", bound=type[nn.Module])
_OURS = re.compile(r"hessrank(\.[A-Za-z]\w*)+:[A-Za-z]\w*")
_OWN_NETWORKS: set[type[nn.Module]] = set()


def own_network(kind: _Network) -> _Network:
    """Let a checkpoint name a class of hessrank's.

    Its arguments come from the file too, so they are sizes only.
    """
    _OWN_NETWORKS.add(kind)
    return kind


def build(arch: Architecture, arch_args: Mapping[str, Any], *, source: str = "") -> nn.Module:
    """Return the network that ``arch`` makes, on the CPU, in evaluation mode.

    The global random state is left as it was.

    Args:
        arch: ``pkg.mod:name``, ``file.py:name``, or the thing itself: a factory or class to call, or a module
            (which is copied).
        arch_args: keyword arguments of the factory.
        source: what names ``arch``, for error messages; ``--arch`` if empty.

    Raises:
        LoadError: the code cannot be imported, the factory raises, or it returns no ``nn.Module``.
        HessrankError: the reference is malformed or names nothing, or ``arch_args`` cannot be used.
    """
    label = source or f"--arch {arch_name(arch)}"
    if not isinstance(arch_args, Mapping):
        raise OptionError(f'--arch-args: this is {_describe_type(arch_args)}; give names and values, {{"width": 64}}')
    thing = import_attribute(arch, what="--arch", error=LoadError) if isinstance(arch, str) else arch
    if isinstance(thing, nn.Module):
        if arch_args:
            raise OptionError(f"{label}: this is a module already, so --arch-args has nothing to go to")
        try:
            return copy_network(thing).cpu().eval()
        except Exception as error:  # a module's attributes may refuse a copy in any way
            raise LoadError(f"{label}: this module cannot be copied: {one_line(error)}; give a factory") from error
    if not callable(thing):
        raise LoadError(
            f"{label}: this is {_describe_type(thing)}; give a function or class that returns an nn.Module"
        )
    return _call(thing, arch_args, label)


def arch_name(arch: Architecture) -> str:
    """Return the name of ``arch`` for messages and reports.

    It is the reference, or ``module:qualified_name``.
    """
    if isinstance(arch, str):
        return arch
    named = type(arch) if isinstance(arch, nn.Module) else arch
    return f"{getattr(named, '__module__', '?')}:{getattr(named, '__qualname__', type(named).__qualname__)}"


def import_ours(arch: str, *, source: str) -> Callable[..., nn.Module]:
    """Return the class of hessrank that a checkpoint names.

    Nothing else is imported on a file's word.

    Only a class marked by :func:`own_network` will do: other functions and modules of ours could be given arguments
    that make them import more (a quantizer's observer), and ``hessrank.x:os.system`` is not ours.

    Raises:
        LoadError: it is none of ours; the user has to repeat it as ``--arch``.
    """
    if not arch:
        raise LoadError(f"{source}: the file does not say what builds its network: add --arch file.py:factory")
    remedy = f"if you trust it, repeat it: --arch {printable(arch)}"
    if not _OURS.fullmatch(arch):
        raise LoadError(
            f"{source}: the file names its own architecture {arch!r}, which is not part of hessrank; {remedy}"
        )
    place, _, attribute = arch.partition(":")
    try:
        found: object = getattr(importlib.import_module(place), attribute)
    except (ImportError, AttributeError) as error:
        raise LoadError(f"{source}: this version of hessrank has no architecture {arch!r}") from error
    for network in _OWN_NETWORKS:
        if found is network:
            return network
    raise LoadError(f"{source}: {printable(arch)} is not a network of hessrank; {remedy}")


def _call(factory: Callable[..., Any], arch_args: Mapping[str, Any], label: str) -> nn.Module:
    given = f" with {printable(json.dumps(dict(arch_args), default=repr))}" if arch_args else ""
    try:
        with user_code(f"{label}: calling it{given}", LoadError):
            made = factory(**arch_args)
            if isinstance(made, nn.Module):
                return take_out(made).cpu().eval()
    except LoadError as error:
        takes = ""
        if isinstance(error.__cause__, TypeError):
            takes = "; it takes (…)"
            with suppress(TypeError, ValueError):  # some callables have no signature
                takes = f"; it takes {inspect.signature(factory)}"
        raise LoadError(f"{error}{takes}") from error.__cause__
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise LoadError(f"{label}: out of memory: the network that it makes{given} does not fit") from error
    raise LoadError(f"{label}: it returned {_describe_type(made)}, not an nn.Module")


def _describe_type(thing: object) -> str:
    if thing is None:
        return "None"
    kind = type(thing).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
