"""gradloop's engine: a training loop for Keras models that gives the numbers of `fit`.

A public name is imported when it is first used (PEP 562): `engine.config` and `engine.options`,
which the command line reads before anything else, do not bring TensorFlow.
"""

from typing import TYPE_CHECKING

from gradloop import lazy

# What type checkers and editors see; `_HOMES` below is what happens.
if TYPE_CHECKING:
    from .checks.setup import check_setup
    from .config import TrainConfig
    from .evaluation import evaluate
    from .history import History, Progress, StopKind
    from .hooks import (
        EarlyStopping,
        GradientNorm,
        Hook,
        HookInfo,
        KerasCallbacks,
        LambdaHook,
        OnNonfinite,
        Profile,
        ProgressBar,
        SaveCheckpoint,
        StateDigest,
        StopAfterSteps,
        StopAfterTime,
        StopOnNaN,
        StopOnSignal,
        Watchdog,
        WriteMetrics,
    )
    from .loop import fit
    from .options import ConfigError
    from .parity.compare import compare_with_fit
    from .parity.comparison import Comparison
    from .predict_function import make_predict_function
    from .prediction import predict
    from .replicas.sums import Largest, as_sum
    from .runtime import configure_runtime
    from .state import TrainState
    from .step import eval_step, predict_step, train_step
    from .step_function import make_eval_function, make_train_function
    from .step_logs import last, total
    from .storage.checkpoint import final_checkpoint
    from .storage.checkpoint import latest as latest_checkpoint
    from .storage.checkpoint import restore as restore_checkpoint
    from .storage.checkpoint import save as save_checkpoint
    from .storage.format import CheckpointError
    from .strategy import make_strategy
    from .tuning.learning_rate import find_learning_rate

__all__ = [
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "EarlyStopping",
    "GradientNorm",
    "History",
    "Hook",
    "HookInfo",
    "KerasCallbacks",
    "LambdaHook",
    "Largest",
    "OnNonfinite",
    "Profile",
    "Progress",
    "ProgressBar",
    "SaveCheckpoint",
    "StateDigest",
    "StopAfterSteps",
    "StopAfterTime",
    "StopKind",
    "StopOnNaN",
    "StopOnSignal",
    "TrainConfig",
    "TrainState",
    "Watchdog",
    "WriteMetrics",
    "as_sum",
    "check_setup",
    "compare_with_fit",
    "configure_runtime",
    "eval_step",
    "evaluate",
    "final_checkpoint",
    "find_learning_rate",
    "fit",
    "last",
    "latest_checkpoint",
    "make_eval_function",
    "make_predict_function",
    "make_strategy",
    "make_train_function",
    "predict",
    "predict_step",
    "restore_checkpoint",
    "save_checkpoint",
    "total",
    "train_step",
]

_HOMES = {
    "checks.setup": ["check_setup"],
    "config": ["TrainConfig"],
    "evaluation": ["evaluate"],
    "history": ["History", "Progress", "StopKind"],
    "hooks": [
        "EarlyStopping", "GradientNorm", "Hook", "HookInfo", "KerasCallbacks", "LambdaHook",
        "OnNonfinite", "Profile", "ProgressBar", "SaveCheckpoint", "StateDigest", "StopAfterSteps",
        "StopAfterTime", "StopOnNaN", "StopOnSignal", "Watchdog", "WriteMetrics",
    ],
    "loop": ["fit"],
    "options": ["ConfigError"],
    "parity.compare": ["compare_with_fit"],
    "parity.comparison": ["Comparison"],
    "predict_function": ["make_predict_function"],
    "prediction": ["predict"],
    "replicas.sums": ["Largest", "as_sum"],
    "runtime": ["configure_runtime"],
    "state": ["TrainState"],
    "step": ["eval_step", "predict_step", "train_step"],
    "step_function": ["make_eval_function", "make_train_function"],
    "step_logs": ["last", "total"],
    "storage.checkpoint": [
        "final_checkpoint", "latest_checkpoint", "restore_checkpoint", "save_checkpoint",
    ],
    "storage.format": ["CheckpointError"],
    "strategy": ["make_strategy"],
    "tuning.learning_rate": ["find_learning_rate"],
}  # fmt: skip
# Names that are longer here than at home.
_AT_HOME = {
    "latest_checkpoint": "latest", "restore_checkpoint": "restore", "save_checkpoint": "save",
}  # fmt: skip

__getattr__, __dir__ = lazy.attach(__name__, _HOMES, _AT_HOME)
