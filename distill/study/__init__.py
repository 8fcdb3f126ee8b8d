"""A table of experiments as one command that goes on where it was."""

from hessrank.distill.study.file import Study, read_study

__all__ = ["Study", "read_study"]
