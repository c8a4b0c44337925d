"""gradloop's engine: a training loop for Keras models that gives the numbers of `fit`."""

from engine.checkpoint import CheckpointError
from engine.checkpoint import latest as latest_checkpoint
from engine.checkpoint import restore as restore_checkpoint
from engine.checkpoint import save as save_checkpoint
from engine.compare import compare_with_fit
from engine.comparison import Comparison
from engine.config import ConfigError, TrainConfig
from engine.function import make_eval_function, make_predict_function, make_train_function
from engine.history import History
from engine.hooks import (
    EarlyStopping,
    Hook,
    HookInfo,
    LambdaHook,
    ProgressBar,
    SaveCheckpoint,
    StopOnNaN,
    StopOnSignal,
    WriteMetrics,
)
from engine.loop import evaluate, fit, predict
from engine.runtime import configure_runtime
from engine.state import TrainState
from engine.step import eval_step, predict_step, train_step
from engine.strategy import make_strategy

__all__ = [
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "EarlyStopping",
    "History",
    "Hook",
    "HookInfo",
    "LambdaHook",
    "ProgressBar",
    "SaveCheckpoint",
    "StopOnNaN",
    "StopOnSignal",
    "TrainConfig",
    "TrainState",
    "WriteMetrics",
    "compare_with_fit",
    "configure_runtime",
    "eval_step",
    "evaluate",
    "fit",
    "latest_checkpoint",
    "make_eval_function",
    "make_predict_function",
    "make_strategy",
    "make_train_function",
    "predict",
    "predict_step",
    "restore_checkpoint",
    "save_checkpoint",
    "train_step",
]
