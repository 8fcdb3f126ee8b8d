"""ONNX with the integers a device will use, checked by running it."""

from hessrank.quant.export.errors import ExportError, require_onnx
from hessrank.quant.export.export import export_onnx
from hessrank.quant.export.report import ExportReport
from hessrank.quant.export.scales import write_scales

__all__ = ["ExportError", "ExportReport", "export_onnx", "require_onnx", "write_scales"]
