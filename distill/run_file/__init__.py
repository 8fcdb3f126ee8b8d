"""What a training is started with: the YAML file, its keys and their defaults."""

from hessrank.distill.run_file.keys import RunKeys
from hessrank.distill.run_file.read import RunFile, read_run, run_of
from hessrank.distill.run_file.settings import Settings

__all__ = ["RunFile", "RunKeys", "Settings", "read_run", "run_of"]
