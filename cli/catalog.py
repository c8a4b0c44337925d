"""What `--list` shows: each name that a flag takes, with a line. Without TensorFlow.

Names of Keras stand here and are not asked for, because Keras takes seconds to import;
tests/cli/test_catalog.py compares them with the installed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradloop.models import registry

from .config import MODES

DATASETS = {
    "mnist": "70,000 handwritten digits, 28 x 28, in 10 classes",
    "fashion_mnist": "70,000 pictures of clothes, 28 x 28, in 10 classes",
    "synthetic": "made from a seed, without a download, of MNIST's sizes",
}
OPTIMIZERS = {
    "adadelta": "Adagrad whose rates do not fall to zero; needs no learning rate of one's own",
    "adafactor": "Adam with a factored second moment: little memory",
    "adagrad": "rates that fall with the sum of squared gradients",
    "adam": "moving averages of the gradient and of its square",
    "adamax": "Adam with the largest gradient in place of the average of squares",
    "adamw": "Adam with decoupled weight decay",
    "ftrl": "follow the regularized leader, for sparse inputs",
    "lamb": "Adam with a rate for each layer, for large batches",
    "lion": "the sign of a moving average: half of Adam's memory",
    "muon": "orthogonalized momentum for matrices, AdamW for the rest",
    "nadam": "Adam with Nesterov momentum",
    "rmsprop": "the gradient divided by the root of the average of its square",
    "sgd": "gradient descent, with momentum if asked for",
}
SCHEDULES = {
    "constant": "the same rate in each step",
    "cosine": "half a cosine from the rate to zero",
    "cosine_restarts": "cosines that begin anew",
    "exponential": "a factor for each so many steps",
    "inverse_time": "the rate divided by a line in the steps",
    "linear": "a line from the rate to zero",
    "polynomial": "a power of the steps that are left",
    "step": "a factor at steps that are named",
}
LOSSES = {
    "binary_crossentropy": "yes or no for each output",
    "binary_focal_crossentropy": "the same, with more weight on hard examples",
    "categorical_crossentropy": "one of several classes, one-hot labels",
    "categorical_focal_crossentropy": "the same, with more weight on hard examples",
    "categorical_hinge": "a margin between the right class and the best other one",
    "circle": "embeddings of the same class close together",
    "cosine_similarity": "angle between two vectors",
    "ctc": "sequences without alignment",
    "dice": "overlap of masks",
    "hinge": "a margin between two classes, labels -1 and 1",
    "huber": "squares of small errors, absolute values of large ones",
    "kl_divergence": "distance between two distributions",
    "log_cosh": "logarithm of the hyperbolic cosine of the error",
    "mean_absolute_error": "absolute values of errors",
    "mean_absolute_percentage_error": "the same in percent of the label",
    "mean_squared_error": "squares of errors",
    "mean_squared_logarithmic_error": "squares of errors of logarithms",
    "poisson": "counts",
    "sparse_categorical_crossentropy": "one of several classes, numbers as labels",
    "squared_hinge": "hinge, squared",
    "tversky": "overlap of masks, with weights for false positives and negatives",
}
METRICS = {
    "accuracy": "share that is right, as loss and output have it",
    "auc": "area under the ROC curve",
    "binary_accuracy": "share of yes-or-no outputs that are right",
    "binary_crossentropy": "as the loss",
    "binary_io_u": "intersection over union of two classes",
    "categorical_accuracy": "share whose most probable class is right, one-hot labels",
    "categorical_crossentropy": "as the loss",
    "categorical_hinge": "as the loss",
    "concordance_correlation": "agreement of two variables, with mean and scale",
    "cosine_similarity": "cosine of the angle between two vectors",
    "f1_score": "harmonic mean of precision and recall",
    "f_beta_score": "weighted mean of precision and recall",
    "false_negatives": "how many",
    "false_positives": "how many",
    "hinge": "as the loss",
    "kl_divergence": "as the loss",
    "log_cosh_error": "as the loss",
    "mean_absolute_error": "as the loss",
    "mean_absolute_percentage_error": "as the loss",
    "mean_squared_error": "as the loss",
    "mean_squared_logarithmic_error": "as the loss",
    "pearson_correlation": "linear correlation",
    "poisson": "as the loss",
    "precision": "share of positives that are right",
    "r2_score": "share of variance that is explained",
    "recall": "share of the right ones that are found",
    "root_mean_squared_error": "root of the mean square of errors",
    "sparse_categorical_accuracy": "as categorical_accuracy, numbers as labels",
    "sparse_categorical_crossentropy": "as the loss",
    "sparse_top_k_categorical_accuracy": "as top_k_categorical_accuracy, numbers as labels",
    "squared_hinge": "as the loss",
    "top_k_categorical_accuracy": "share whose class is among the 5 most probable",
    "true_negatives": "how many",
    "true_positives": "how many",
}
STRATEGIES = {
    "default": "one device, TensorFlow's choice",
    "one_device": "the first GPU, or the CPU",
    "mirrored": "all GPUs of this machine, or logical CPU devices",
    "multi_worker": "several processes: --num_workers on this machine, or TF_CONFIG",
}
_HOOKS = {
    "EarlyStopping": "ends a run that no longer improves: --early_stopping, --patience",
    "GradientNorm": "logs the norm of the gradient; from Python",
    "KerasCallbacks": "runs callbacks of Keras: --hook",
    "OnNonfinite": "stops, skips or goes back where a number is not finite: --on_nonfinite",
    "Profile": "records which operation takes how long: --profile",
    "ProgressBar": "shows a bar for each epoch, always; not with --quiet",
    "SaveCheckpoint": "saves, always: --checkpoint_every_steps, --keep, --keep_best",
    "StateDigest": "writes digests of the state: --state_digest",
    "StopAfterSteps": "ends a run after so many steps: --max_steps",
    "StopAfterTime": "saves and ends a run after a time: --max_time",
    "StopOnNaN": "ends a run whose loss is not finite, unless --on_nonfinite is given",
    "StopOnSignal": "saves and ends a run at Ctrl-C or SIGTERM, always",
    "Watchdog": "ends a run that hangs: --hang_secs",
    "WriteMetrics": "writes metrics.csv, JSON lines, TensorBoard's files and others: --logger",
}
_LOGGERS = {
    "wandb": "Weights & Biases, with the extra wandb",
    "mlflow": "MLflow, with the extra mlflow",
}
_MODES = {
    "train": "train, validate, and test in the end",
    "evaluate": "loss and metrics of a checkpoint on the test set",
    "predict": "what a checkpoint says of the test set",
    "compare": "the same training with the engine and with fit, bit by bit",
    "compare_runs": "two to eight runs side by side, with the settings that differ",
    "tune": "what is fastest on this machine, for later runs",
    "diagnose_input": "whether the input limits the speed of training",
    "replay": "one step of a run again, with checks",
    "export": "a checkpoint as a SavedModel, a Keras file or weights",
    "check": "what does not go together in these settings; no run",
    "report": "report.html of a run, also of one that is going on or was killed",
    "sweep": "runs in turn, over values of settings",
    "runs": "the runs in a folder, with their best values",
}
# What `--list` shows, and the flag that takes each.
GROUPS: dict[str, tuple[str, Mapping[str, str]]] = {
    "models": ("--model", {name: entry.summary for name, entry in registry.MODELS.items()}),
    "datasets": ("--dataset", DATASETS),
    "optimizers": ("--optimizer", OPTIMIZERS),
    "schedules": ("--schedule", SCHEDULES),
    "losses": ("--loss", LOSSES),
    "metrics": ("--metrics", METRICS),
    "strategies": ("--strategy", STRATEGIES),
    "hooks": ("", _HOOKS),
    "loggers": ("--logger", _LOGGERS),
    "modes": ("--mode", {name: _MODES.get(name, "") for name in MODES}),
}


def to_text(groups: Sequence[str] = ()) -> str:
    """Returns the names of some groups, or of all, a line each.

    Args:
      groups: Of `GROUPS`; none: all.
    """
    return "\n\n".join(map(_group_text, groups or GROUPS))


def _group_text(group: str) -> str:
    flag, lines = GROUPS[group]
    width = max(map(len, lines))
    title = f"{group} ({flag}):" if flag else f"{group}:"
    return "\n".join([title, *(f"  {name:<{width}}  {line}" for name, line in lines.items())])
