"""The teacher: its activations, and the losses that compare a student with it."""

from hessrank.distill.teacher.teacher import Teacher

__all__ = ["Teacher"]
