"""The experiment trackers that ``accelerate`` knows; the command line reads them without torch."""

ALL = "all"
TRACKERS = (
    "tensorboard",
    "mlflow",
    "wandb",
    "trackio",
    "aim",
    "clearml",
    "comet_ml",
    "dvclive",
    "swanlab",
    ALL,
)
# Under which project, or experiment, the runs are.
PROJECT = "spd"
