"""Sparse BERT classifiers that are really faster: train, export, load, evaluate, benchmark, serve.

    import spd_deploy as spd

    trained = spd.train(data="reviews.csv", text_column="review", label_column="stars",
                        model="MINILM_FOLDER", pattern="block:64x1", output="runs/reviews")
    exported = spd.export(trained, output="artefacts/reviews")
    with spd.load(exported) as model:
        print(model.predict(["Good.", "Bad."]).labels)

Each function has the names, the defaults and the errors of the command that is
called like it. Importing this package imports none of the heavy libraries; a function imports what
it needs when it is called.
"""

from importlib import import_module

# `python -m spd_deploy` runs this before it takes the working folder off the path, where a user's
# typing.py may lie. Type checkers know this name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from spd_deploy.api import (
        BenchResult,
        CalibrationResult,
        DistilResult,
        Evaluation,
        ExportResult,
        FileCost,
        Inspection,
        Model,
        ModelDifference,
        Predictions,
        PruneResult,
        PushResult,
        SpdError,
        TextPrediction,
        TrainResult,
        bench,
        calibrate,
        compare,
        create_app,
        distil,
        evaluate,
        export,
        inspect,
        load,
        predict,
        prune,
        push,
        train,
    )

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


if not TYPE_CHECKING:  # a checker sees the names above, and so finds one that is misspelled

    def __getattr__(name: str) -> object:
        """A name of :mod:`spd_deploy.api`, imported when it is first asked for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module("spd_deploy.api"), name)
        return value


def __dir__() -> list[str]:
    """The names that are there, and those that are imported on demand."""
    return sorted({*globals(), *__all__})
