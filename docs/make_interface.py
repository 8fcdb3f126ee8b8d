"""Write docs/interface.md, the whole interface, from what the code itself says: ``make interface``.

Commands come from the command line's own options, Python names from signatures and docstrings. Nothing depends on a
terminal or its width; a test says when the page is stale.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer.main

import hessrank
from hessrank.cli.app import app

PAGE = Path(__file__).with_name("interface.md")
BASE_CLASSES = {
    "hessrank.distill.tasks": ("Task",),
    "hessrank.quant.quantizers": ("Quantizer", "Observer"),
}
OPENING = """\
# The interface

Written by `make interface` from the code: signatures, docstrings and options. [The command line](#the-command-line) ·
[Python](#python) · [Classes to build on](#classes-to-build-on). Keys of the files: [policy.md](policy.md),
[training.md](training.md), [study.md](study.md).

What holds everywhere:

- `hessrank MODEL` is short for `hessrank rank MODEL`. `hessrank --install-completion` makes the shell
  complete commands,  options and files.
- `DataParallel`, `DistributedDataParallel`, `AveragedModel` and what `torch.compile` returns are looked
  through wherever  a model is given: what is inside has its own names. Where `attention_mask` is 0 there is
  padding  ([transformers.md](transformers.md)).
- Plots return matplotlib's Axes, made outside pyplot, so nothing is to be closed; `ax.figure.savefig(path)`
  saves them. A  notebook shows them where they stand last in a cell, elsewhere with `display(…)`.
- `torch.load(weights_only=True)` reads the files of `save_checkpoint`: `{"hessrank": 1, "arch":
  "pkg.mod:name",  "arch_args": {…}, "input_shape": [1, 96, 96], "inputs": N×1×96×96 or None, "metadata": {…},
  "model": state_dict}`. Their  `arch` is imported only if it is one of hessrank's own networks; any other has
  to be repeated as `--arch`, since a file  that names code to import is a file that runs code
  ([safety.md](safety.md)).
"""
_WIDTH = 100
_HOOKS = ("extra_repr", "get_extra_state", "set_extra_state", "model_post_init")  # for torch and pydantic to call
_LISTS = ("Args", "Attributes", "Raises")
_SECTION = re.compile(rf"^({'|'.join(_LISTS)}|Returns|Yields|Example|Examples):$")


def make_page() -> str:
    """Return the page as it should be."""
    public = {name: getattr(hessrank, name) for name in hessrank.__all__}
    functions = {name: value for name, value in public.items() if not inspect.isclass(value)}
    classes = {name: value for name, value in public.items() if inspect.isclass(value)}
    parts = [OPENING, "## The command line\n", *_describe_commands(), "## Python\n"]
    parts += [_describe_function(f"hessrank.{name}", value, "###") for name, value in functions.items()]
    parts += [_describe_class(f"hessrank.{name}", value) for name, value in classes.items()]
    parts += ["## Classes to build on\n"]
    for module, names in BASE_CLASSES.items():
        parts += [_describe_class(f"{module}.{n}", getattr(importlib.import_module(module), n)) for n in names]
    return "\n".join(parts)


def _describe_commands() -> Iterator[str]:
    """Yield a text for the group of commands, and one for each command."""
    group: Any = typer.main.get_command(app)
    yield f"{_plain_markup(group.help)}\n\n{_plain_markup(group.epilog)}\n"
    yield from _describe_options(group, {})
    for registered in app.registered_commands:
        function: Any = registered.callback
        command = group.commands[function.__name__]
        arguments = [p.name.upper() for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(["hessrank", command.name, *arguments, "[OPTIONS]"])
        yield f"### hessrank {command.name}\n\n    {usage}\n\n{inspect.cleandoc(command.help)}\n"
        yield from _describe_options(command, get_type_hints(function, include_extras=True))


def _describe_options(command: Any, hints: dict[str, Any]) -> Iterator[str]:
    """Yield a table for each panel of a command's options, arguments first."""

    def panel_of(parameter: Any) -> str:
        is_argument = parameter.param_type_name == "argument"
        return "Arguments" if is_argument else parameter.rich_help_panel or "Options"

    panels = list(dict.fromkeys(map(panel_of, command.params)))
    for panel, members in groupby(sorted(command.params, key=lambda p: panels.index(panel_of(p))), key=panel_of):
        rows = [_describe_option(parameter, hints.get(parameter.name, bool)) for parameter in members]
        yield "\n".join([f"| {panel} | value | default | |", "|---|---|---|---|", *rows, ""])


def _describe_option(parameter: Any, hint: Any) -> str:
    """Return one row of a table: an option's names, the type of its value, its default, its help."""
    is_argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]
    flag = not is_argument and parameter.is_flag
    default = "required" if parameter.required else "" if parameter.default is None else parameter.default
    if flag:
        default = (parameter.opts if parameter.default else parameter.secondary_opts or [""])[0]
    value = "" if flag else _describe_type(hint)
    text = " ".join((parameter.help or "").split())
    cells = (", ".join(f"`{name}`" for name in names), value, str(default), text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _describe_type(hint: Any) -> str:
    """Return the type of an option's value as text, with its bounds, and whether it may be given again."""
    option = get_args(hint)[1] if get_origin(hint) is Annotated else None
    kinds = [kind for kind in get_args(get_args(hint)[0]) or get_args(hint)[:1] if kind is not type(None)]
    kind = kinds[0]
    again = get_origin(kind) is list
    name = {"str": "text", "Path": "path", "int": "integer", "float": "number"}[
        (get_args(kind)[0] if again else kind).__name__
    ]
    least, most = getattr(option, "min", None), getattr(option, "max", None)
    bounds = [f"≥ {least}"] * (least is not None) + [f"≤ {most}"] * (most is not None)
    return ", ".join([name, *bounds, *(["more than once"] if again else [])])


def _describe_class(name: str, described: type) -> str:
    """Return a class's text: how it is made, its docstring, its public methods and properties."""
    ours = [base for base in described.__mro__ if base.__module__.split(".")[0] == "hessrank"]
    made = any("__init__" in vars(base) for base in ours) and not getattr(described, "_is_protocol", False)
    code = _show_signature(name, inspect.signature(described)) if made else name
    parts = [f"### {name}\n\n```python\n{code}\n```\n\n{_as_markdown(described)}"]
    members = {key: value for base in reversed(ours) for key, value in vars(base).items()}
    for key, member in members.items():
        if key.startswith("_") or key in _HOOKS:
            continue
        if isinstance(member, property | cached_property):
            parts.append(f"#### {described.__name__}.{key}\n\n{_as_markdown(member)}")
        elif inspect.isfunction(member) or isinstance(member, classmethod | staticmethod):
            function = member if inspect.isfunction(member) else getattr(described, key)
            parts.append(_describe_function(f"{described.__name__}.{key}", function, "####"))
    return "\n".join(parts)


def _describe_function(name: str, function: Any, heading: str) -> str:
    code = _show_signature(name, inspect.signature(function))
    return f"{heading} {name}\n\n```python\n{code}\n```\n\n{_as_markdown(function)}"


def _show_signature(name: str, signature: inspect.Signature) -> str:
    """Return a signature as it is written in the source, a parameter a line where it is long."""
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    words = [_show_parameter(parameter) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        words.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    given = signature.return_annotation
    end = "" if given is signature.empty or given in ("None", None) else f" -> {_show_annotation(given)}"
    line = f"{name}({', '.join(words)}){end}"
    return line if len(line) <= _WIDTH else "\n".join([f"{name}(", *(f"    {word}," for word in words), f"){end}"])


def _show_parameter(parameter: inspect.Parameter) -> str:
    """Return a parameter as it is written; of a default that is a function or a class the name, not the address."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    known = parameter.annotation is not parameter.empty
    text = f"{stars}{parameter.name}{f': {_show_annotation(parameter.annotation)}' if known else ''}"
    if parameter.default is parameter.empty:
        return text
    default = getattr(parameter.default, "__name__", None) or repr(parameter.default)
    return f"{text}{' = ' if known else '='}{default}"


def _show_annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _as_markdown(described: Any) -> str:
    """Return a docstring with its sections as lists, and its roles as code."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.getdoc(described) or "")
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if found := _SECTION.match(line):
            section = found[1]
            lines += [f"**{section}**", ""]
        elif section in _LISTS and (item := re.match(r"^    ([^\s:][^:]*): (.*)$", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif section.startswith("Example"):
            lines.append(line)
        else:
            lines.append(f"  {line.strip()}".rstrip() if section in _LISTS else line.strip() if section else line)
    return "\n".join(lines).rstrip() + "\n"


def _plain_markup(text: str) -> str:
    """Return text of rich with what is bold as code."""
    return re.sub(r"\[/?bold\]", "`", text)


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
