"""Files: named by the user, written whole or not at all, by one process at a time, never larger than they may be."""

from hessrank.files.atomic_write import check_writable, written_whole

__all__ = ["check_writable", "written_whole"]
