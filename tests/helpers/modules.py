"""The modules of the package, found as files: by the name that each is imported by."""

from pathlib import Path

from helpers.places import ROOT

FOLDERS = {
    "hessrank": "hessrank",
    "analysis": "hessrank.analysis",
    "quant": "hessrank.quant",
    "distill": "hessrank.distill",
}
FILES = {path: path.read_text(encoding="utf-8") for top in FOLDERS for path in sorted((ROOT / top).rglob("*.py"))}


def name_of(path: Path) -> str:
    """Return the name that a file is imported by."""
    top, *inner = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[top], *inner]).removesuffix(".__init__")


MODULES = {name_of(path): text for path, text in FILES.items()}
