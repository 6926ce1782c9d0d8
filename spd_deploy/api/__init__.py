"""The Python API: one function for each command, with its names, defaults and errors."""

from spd_deploy.api.app import create_app
from spd_deploy.api.benchmarks import BenchResult, bench
from spd_deploy.api.calibrating import CalibrationResult, calibrate
from spd_deploy.api.comparison import ModelDifference, compare
from spd_deploy.api.distilling import DistilResult, distil
from spd_deploy.api.evaluation import Evaluation, evaluate
from spd_deploy.api.exporting import ExportResult, export
from spd_deploy.api.inspection import Inspection, inspect
from spd_deploy.api.loading import Model, load
from spd_deploy.api.predicting import predict
from spd_deploy.api.predictions import Predictions, TextPrediction
from spd_deploy.api.pruning import PruneResult, prune
from spd_deploy.api.pushing import PushResult, push
from spd_deploy.api.training import TrainResult, train
from spd_deploy.domain.errors import SpdError
from spd_deploy.scale.cost import FileCost

__all__ = [
    "BenchResult",
    "CalibrationResult",
    "DistilResult",
    "Evaluation",
    "ExportResult",
    "FileCost",
    "Inspection",
    "Model",
    "ModelDifference",
    "Predictions",
    "PruneResult",
    "PushResult",
    "SpdError",
    "TextPrediction",
    "TrainResult",
    "bench",
    "calibrate",
    "compare",
    "create_app",
    "distil",
    "evaluate",
    "export",
    "inspect",
    "load",
    "predict",
    "prune",
    "push",
    "train",
]
