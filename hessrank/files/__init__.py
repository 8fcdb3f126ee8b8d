"""Files: checked paths, atomic writes, one writer at a time, limits of size."""

from hessrank.files.atomic_write import check_writable, written_whole

__all__ = ["check_writable", "written_whole"]
