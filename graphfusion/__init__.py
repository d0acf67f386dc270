"""graphfusion: text, images, audio, video, tables and features as one heterogeneous graph.

The public names are loaded when they are first used, so that importing the package stays light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "FusionPredictor": "graphfusion.predictor",
    "FusionModel": "graphfusion.model",
    "count_parameters": "graphfusion.sizing",
    "matched_feedforward": "graphfusion.sizing",
    "Schema": "graphfusion.schema",
    "Text": "graphfusion.schema",
    "Image": "graphfusion.schema",
    "Audio": "graphfusion.schema",
    "Video": "graphfusion.schema",
    "Tabular": "graphfusion.schema",
    "Features": "graphfusion.schema",
    "PretrainedText": "graphfusion.schema",
    "PretrainedImage": "graphfusion.schema",
    "Class": "graphfusion.schema",
    "MultiLabel": "graphfusion.schema",
    "Number": "graphfusion.schema",
    "ModelConfig": "graphfusion.config",
    "TrainingConfig": "graphfusion.config",
    "RunConfig": "graphfusion.config",
    "Sample": "graphfusion.data",
    "read_table": "graphfusion.data",
    "NodeType": "graphfusion.modalities",
    "Tokens": "graphfusion.modalities",
    "GraphBatch": "graphfusion.graph_builder",
    "GraphBuilder": "graphfusion.graph_builder",
    "NodeStore": "graphfusion.graph_builder",
    "GraphFusion": "graphfusion.fusion",
    "FusedGraph": "graphfusion.fusion",
    "HeteroLayer": "graphfusion.nn",
    "accelerate": "graphfusion.nn",
    "Prediction": "graphfusion.tasks",
    "GraphFusionError": "graphfusion.errors",
}
"""Public name → module that defines it."""

__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'graphfusion' has no attribute {name!r}")
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
