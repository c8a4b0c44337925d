"""The table of bad inputs: one line, exit code 2, nothing lost, and nothing left behind."""

import shlex
import sys

import numpy as np
import pytest

from gradloop.cli import main as train
from tests.cli.runs import contents

SMALL = "--model dense --dataset synthetic"
OWN = "--dataset good.npz"

# What the issue on the command line names in its section 3.
OF_THE_ISSUE = {
    "--config deep.json": "too many brackets",
    "--config deep.toml": "too many brackets",
    "--config deep.yaml": "too many brackets",
    "--run_dir ''": "run_dir='' is empty",
    "--data_dir ''": "data_dir='' is empty",
    "--checkpoint ' '": "checkpoint=' ' is empty",
    "--config ''": "the name of the file is empty",
    "--tune --check": "--tune and --check both set mode",
    "--mode train --tune": "--mode and --tune both set mode",
    "--config twice.json": "config file 'twice.json': it cannot be read as JSON: the key 'epochs'",
    "--config twice.yaml": "the key 'epochs' is there twice",
    "--config twice.toml": "cannot be read as TOML",
    "--config both.json": "'batch_size' and 'global_batch_size' are the same setting",
    "--batch_size 8 --global_batch_size 8": "both set global_batch_size",
    f"{SMALL} --strategy mirrored --batch_size 200000 --num_replicas 100000": "ask for 64 or fewer",
    f"{SMALL} --data_dir nowhere": "data_dir='nowhere' is no folder",
    f"{SMALL} --data_dir afile": "data_dir='afile' is no folder",
    "--dataset MNIST": "Did you mean 'mnist'?",
    "--model CNN": "Did you mean 'cnn'?",
    "--precision Float32": "Did you mean 'float32'?",
    "--config wrong.json": "config file 'wrong.json': epochs=three must be of type int",
}
MORE = {
    # Flags
    "train": "Did you mean '--mode train'?",
    "--epohcs 3": "Did you mean '--epochs'?",
    "-e 3": "--help lists the flags",
    "--epochs 3 4": "unknown argument '4'",
    "--epochs": "expected one argument",
    "--epochs 3.0": "Write 3.",
    f"--epochs {10**23}": "epochs=100000000000000000000000 must be 2147483647 or less",
    "--learning_rate 1e400": "must be a finite number",
    "--ema 1": "must be below 1",
    "--list modls": "Did you mean 'models'?",
    "--mode Train": "Did you mean 'train'?",
    "--strategy multi": "Did you mean 'multi_worker'?",
    "--resume autoo --run_dir x": "Did you mean 'auto'?",
    # Files
    "--config nowhere.toml": "it cannot be read: No such file or directory",
    "--config afolder": "it cannot be read: Is a directory",
    "--config binary.json": "cannot be read as JSON",
    "--config list.json": "must hold an object of fields, not a list",
    "--config null.json": "holds a null character",
    "--config no.yaml": "rescale='no' is not one of: true, false",
    "--config initial.toml": "(initial_epoch comes from config file 'initial.toml'.)",
    f"{SMALL} --run_dir afile": "cannot write to afile",
    f"{SMALL} --run_dir afile/x": "cannot write to afile/x",
    f"{SMALL} --checkpoint afile": "afile is damaged, or no checkpoint",
    f"{SMALL} --checkpoint afolder": "no intact checkpoint in afolder",
    # Variables
    "GRADLOOP_EPOHCS=3 --epochs 3": "Did you mean 'GRADLOOP_EPOCHS'?",
    "GRADLOOP_EPOCHS=two": "GRADLOOP_EPOCHS: epochs=two must be of type int",
    "GRADLOOP_RUN_DIR=": "GRADLOOP_RUN_DIR: run_dir='' is empty",
    "GRADLOOP_RESUME=true": "(resume comes from GRADLOOP_RESUME.)",
    "GRADLOOP_BATCH_SIZE=1 GRADLOOP_GLOBAL_BATCH_SIZE=1": "are the same setting",
    # One's own work
    f"--model nets:biuld {OWN}": "Did you mean 'build'?",
    f"--model nets:none {OWN}": "must return a keras.Model",
    f"--model nets:value {OWN}": "must be a function or a class",
    f"--model nets.py:build {OWN}": "the module as in an import statement: nets:build",
    f"--model nowhere:build {OWN}": "there is no module 'nowhere'",
    f"--model nets:build {OWN} --set model.unts=3": "Did you mean 'units'?",
    f"{OWN} --model dense --set units=3": "must be PREFIX.ARGUMENT=VALUE",
    "--set model.units": "must be NAME=VALUE",
    f"{SMALL} --set model.units=-3": "expected a positive integer",
    f"{SMALL} --loss mean_sqared_error": "Did you mean 'mean_squared_error'?",
    f"{SMALL} --metrics acuracy": "Did you mean 'accuracy'?",
    "--metrics ''": "must hold names that are not empty",
    "--optimizer adamm": "Did you mean 'adam'?",
    f"{SMALL} --optimizer adam --momentum 0.9": "Adam takes no momentum",
    "--schedule cosin": "Did you mean 'cosine'?",
    "--clipnorm 1 --clipvalue 1": "choose one of them",
    f"{SMALL} --init_from nowhere.npz": "does not exist",
    "--exclude x": "without init_from",
    f"{SMALL} --step nets:nope": "the module 'nets' has no 'nope'",
    f"{SMALL} --step nets:none": "none() cannot be called with these two",
    f"{SMALL} --optimizer nets:none": "must return a keras.optimizers.Optimizer",
    f"{SMALL} --schedule nets:none": "must return a keras.optimizers.schedules",
    # One's own data
    "--dataset nowhere.csv": "or a file or folder",
    "--dataset ~nobody-here/a.csv": "does not exist",
    "--model dense --dataset t.csv": "Pass --target NAME: a, label",
    "--model dense --dataset t.csv --target labl": "Did you mean 'label'?",
    "--model dense --dataset ragged.csv --target label": "ragged.csv, line 3",
    "--model dense --dataset bad.npz": "bad.npz cannot be read",
    "--model dense --dataset short.npz": "x has 4 examples, and y has 3",
    "--model dense --dataset afolder": "expected two or more",
    f"{SMALL} --target x": "is not for the dataset synthetic",
    f"{SMALL} --validation_split 1.5": "below 1",
    # What a run shows, and when it ends
    f"{SMALL} --early_stopping val_lss": "Did you mean 'val_loss'?",
    "--patience 3": "which is not asked for",
    "--max_time -5": "must be a time above 0",
    "--run_name a/b": "must be the name of a folder",
    "--tags a,,b": "must hold names that are not empty",
    "--logger WANDB": "Did you mean 'wandb'?",
    # Folders of runs
    "--mode replay --run_dir afolder --step 3": "run_dir='afolder' holds no run",
    "--report": "needs run_dir",
    "--report --run_dir afolder": "holds no run",
    "--mode compare_runs --runs afolder": "takes the folders of 2 to 8 runs, not 1",
}  # fmt: skip
FILES = {
    "afile": "x",
    "deep.json": "[" * 100_000,
    "deep.toml": "epochs = " + "[" * 100_000,
    "deep.yaml": "[" * 700,
    "twice.json": '{"epochs": 1, "epochs": 2}',
    "twice.yaml": "epochs: 1\nepochs: 2\n",
    "twice.toml": "epochs = 1\nepochs = 2\n",
    "both.json": '{"batch_size": 1, "global_batch_size": 1}',
    "wrong.json": '{"epochs": "three"}',
    "list.json": "[]",
    "null.json": '{"run_dir": "a\\u0000b"}',
    "binary.json": "\udcff\udcfe",
    "no.yaml": "rescale: no\n",
    "initial.toml": "initial_epoch = 7\n",
    "t.csv": "a,label\n1,x\n2,y\n",
    "ragged.csv": "a,b,label\n1,2,x\n3,y\n",
    "bad.npz": "nonsense",
    "nets.py": "value = 3\ndef none(): pass\ndef build(input_shape, num_classes, units=4): pass\n",
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with the files of the table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "afolder").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    x, y = np.zeros((4, 3), "float32"), np.arange(4) % 2
    np.savez(tmp_path / "good.npz", x=x, y=y)
    np.savez(tmp_path / "short.npz", x=x, y=y[:3])
    yield
    sys.modules.pop("nets", None)


def test_the_table_is_as_long_as_the_issue_asks():
    assert len(MORE) >= 45


@pytest.mark.parametrize("line", [*OF_THE_ISSUE, *MORE])
def test_bad_input_is_one_line_and_exit_code_2(line, tmp_path, capsys, monkeypatch):
    words = shlex.split(line)
    while words[:1] and words[0].startswith("GRADLOOP_"):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    before = contents(tmp_path)
    try:
        code = train.main(words)
    except SystemExit as stop:
        code = stop.code
    out, error = capsys.readouterr()
    assert (code, out, error.count("\n")) == (2, "", 1), error
    assert error.startswith("train.py: error: ")
    assert (OF_THE_ISSUE | MORE)[line] in error
    assert len(error) < 700
    assert contents(tmp_path) == before
