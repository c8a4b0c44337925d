"""--num_workers with stand-ins for workers: one cluster, one exit code, restarts, signals."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gradloop import signals
from gradloop.cli import main
from gradloop.cli.config import JobConfig
from gradloop.cli.start import start
from gradloop.cli.workers import launch, processes, supervisor
from gradloop.machine import num_cores
from tests.cli.runs import ROOT, contents

STUB = Path(__file__).with_name("stub_worker.py")
SETTINGS = dataclasses.asdict(JobConfig(strategy="multi_worker", num_workers=3, run_dir="run"))


@pytest.fixture(autouse=True)
def fresh_keras(tmp_path, monkeypatch):
    """Replaces conftest's: nothing here runs Keras, and each test is alone in a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(launch, "visible_gpus", list)
    monkeypatch.setattr(supervisor, "SETTLE_SECS", 1.0)


def run(scenario, **settings):
    """Returns the exit code of workers that do what the scenario says."""
    command = [sys.executable, str(STUB), scenario]
    return launch.launch(command, SETTINGS | settings, prog="train.py")


def alive(tmp_path):
    """Returns the stand-ins of this test that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            is_one = path.read_text().split("\0")[1:2] == [str(STUB)]
            found += [path] if is_one and (path.parent / "cwd").readlink() == tmp_path else []
        except OSError:
            continue
    return found


def test_workers_are_a_cluster_on_this_machine(monkeypatch, capfd):
    scenario = "meet(); print(os.environ['TF_CONFIG'], os.environ['TF_GRPC_REUSE_PORT'], sys.argv)"
    assert run(scenario) == 0
    texts = [capfd.readouterr().out]
    texts += [Path(f"run/workers/worker-{i}.log").read_text() for i in (1, 2)]
    addresses = set()
    for index, text in enumerate(texts):
        first, second = text.splitlines()
        assert first == f"worker {index} of 3"
        config, end = json.JSONDecoder().raw_decode(second)
        assert config["task"] == {"type": "worker", "index": index}
        addresses.add(tuple(config["cluster"]["worker"]))
        threads = str(max(1, num_cores() // 3))
        assert second[end:].startswith(" 1 [")
        assert f"'--inter_op_threads', '{threads}'" in second
        assert "intra_op_threads" not in second  # convolutions would have other bits than mirrored
    (found,) = addresses
    assert len(set(found)) == 3
    assert all(address.startswith("127.0.0.1:") for address in found)


def test_a_chosen_number_of_threads_is_kept(monkeypatch, capfd):
    assert run("print(sys.argv)", num_workers=1, inter_op_threads=2) == 0
    assert "inter_op_threads" not in capfd.readouterr().out


def test_a_port_of_a_worker_is_not_given_to_others():
    kept = [processes._reserve_port() for _ in range(200)]
    ports = {one.getsockname()[1] for one in kept}
    for one in kept:
        one.close()
    assert len(ports) == 200


def test_a_worker_can_listen_on_its_port(monkeypatch):
    listen = (
        "import socket; port = int(config['cluster']['worker'][index].split(':')[1]); "
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); "
        "s.bind(('127.0.0.1', port)); s.listen()\n"
        "c = socket.create_connection(('127.0.0.1', port)); s.accept()"
    )
    assert run(listen, num_workers=2) == 0


def test_without_a_folder_a_new_one_is_made(monkeypatch, tmp_path):
    assert run("meet()", run_dir=None) == 0
    (folder,) = (tmp_path / "runs" / "cnn-mnist").iterdir()
    assert (folder / "workers" / "worker-2.log").exists()


def test_workers_of_a_launcher_in_the_background_do_not_ignore_ctrl_c(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run("assert not ignored", num_workers=1) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_gpus_are_shared_out(monkeypatch, capfd):
    monkeypatch.setattr(launch, "visible_gpus", lambda: ["0", "1", "5"])
    assert run("meet(); print(os.environ['CUDA_VISIBLE_DEVICES'])", num_workers=2) == 0
    assert capfd.readouterr().out.endswith("\n0,5\n")
    assert Path("run/workers/worker-1.log").read_text().endswith("\n1\n")


REFUSED = {
    "num_workers=100000": {"num_workers": 100000},
    "TF_CONFIG": {"environment": {"TF_CONFIG": "{}"}},
    "already holds a run": {"run_dir": "used"},
    "cannot write to": {"run_dir": "/proc/nowhere"},
    "3 GPUs" : {"num_workers": 4, "gpus": 3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("named", "gpus"), [("-1", []), ("", []), ("0,1", ["0", "1"]), ("2,-1,3", ["2"])]
)
def test_the_gpus_that_a_variable_names_are_those_of_cuda(named, gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert processes.visible_gpus() == gpus


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(words, monkeypatch, capfd, tmp_path):
    settings = dict(REFUSED[words])
    for name, value in settings.pop("environment", {}).items():
        monkeypatch.setenv(name, value)
    num_gpus = settings.pop("gpus", 0)
    monkeypatch.setattr(launch, "visible_gpus", lambda: [str(n) for n in range(num_gpus)])
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "command.txt").touch()
    before = contents(tmp_path)
    assert run("", **settings) == 2
    output = capfd.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("train.py: error: ") and words in output.err
    assert contents(tmp_path) == before


def test_what_the_workers_refuse_leaves_nothing(monkeypatch, tmp_path):
    assert run("sys.exit(2)") == 2
    assert list(tmp_path.iterdir()) == []


DEATHS = {
    "os.kill(os.getpid(), signal.SIGKILL)": 137,
    "sys.exit(1)": 1,
    "sys.exit(75)": 75,
}


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("death", DEATHS)
def test_one_that_dies_ends_all_and_all_start_again(death, victim, monkeypatch, capfd, tmp_path):
    scenario = (
        f"meet()\nif index == {victim} and not is_restart: print('last words', flush=True); {death}"
        f"\nif not is_restart: time.sleep(60)"
    )
    assert run(scenario) == 0
    errors = capfd.readouterr().err
    assert f"worker {victim} " in errors and "restart 1 of 3" in errors
    assert ("  last words" in errors) == (victim == 1)  # the chief's are on the screen
    assert alive(tmp_path) == []


def test_it_is_given_up_after_max_restarts(monkeypatch, capfd):
    scenario = "(run_dir / 'starts').open('a').write(str(index))\nif index == 1: sys.exit(7)"
    assert run(scenario, max_restarts=2) == 7
    assert Path("run/starts").read_text().count("1") == 3
    assert "restart 2 of 2" in capfd.readouterr().err


DIVERGED = """(run_dir / "summary.json").write_text('{"status": "diverged"}'); sys.exit(1)"""
NO_RESTART = {
    "usage": ("sys.exit(2)", 2),
    "divergence": (DIVERGED, 1),
    "interruption": ("sys.exit(143)", 143),
    "evaluation": ("sys.exit(1)", 1),
}


@pytest.mark.parametrize("case", NO_RESTART)
def test_what_another_start_would_not_change_is_the_end(case, monkeypatch):
    scenario, code = NO_RESTART[case]
    scenario = "assert not is_restart\nmeet()\n" + scenario
    changes = {"evaluation": {"mode": "evaluate"}}.get(case, {})
    assert run(scenario, num_workers=2, **changes) == code


@pytest.mark.parametrize(
    ("codes", "code"),
    [([], 0), ([0, 0], 0), ([0, 75], 75), ([75, 1, 2], 1), ([75, -9, 1], 137), ([143, 0, 75], 143)],
)
def test_the_worst_exit_code(codes, code):
    assert supervisor.worst(codes) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_worker_once(number, monkeypatch, tmp_path):
    def strike():
        while not (tmp_path / "run" / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=strike)
    thread.start()
    scenario = "meet()\n(run_dir / 'started').touch()\ntime.sleep(60)"
    assert run(scenario) == 128 + number
    thread.join()
    for index in range(3):
        assert Path(f"run/signals-{index}").read_text() == "SIGINT\n"


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from gradloop import signals
from gradloop.cli.workers.launch import launch
with signals.caught():
    command = [sys.executable, {stub!r}, {scenario!r}]
    sys.exit(launch(command, {settings!r}, prog="train.py"))
"""
DEAF = "meet()\n(run_dir / 'started').touch()\nfor deaf in range(600): time.sleep(0.1)"


@pytest.fixture
def launcher(tmp_path):
    """A launcher in a process of its own, whose workers do not end by a signal."""
    program = PROGRAM.format(root=str(ROOT), stub=str(STUB), scenario=DEAF, settings=SETTINGS)
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    try:
        while not (tmp_path / "run" / "started").exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def is_left_alone(tmp_path):
    deadline = time.monotonic() + 5
    while alive(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive(tmp_path) == []


def test_a_second_signal_kills_all(launcher, tmp_path):
    launcher.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert len(alive(tmp_path)) == 3
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(10) == 143
    assert is_left_alone(tmp_path)


def test_workers_do_not_outlive_a_killed_launcher(launcher, tmp_path):
    launcher.kill()
    assert is_left_alone(tmp_path)


WITH_AND_WITHOUT = {
    "--num_workers 2": True,
    "--num-workers=2": True,
    "--config with.toml": True,
    "--config=with.toml": True,
    "--config without.toml": False,
    "--config with.toml --num_workers none": False,
}


@pytest.mark.parametrize("flags", WITH_AND_WITHOUT)
def test_where_workers_are_asked_for(flags, monkeypatch):
    Path("with.toml").write_text("num-workers = 2")
    Path("without.toml").write_text("epochs = 2")
    monkeypatch.setattr(sys, "argv", ["train.py", *flags.split(), "--strategy", "multi_worker"])
    launched = []
    monkeypatch.setattr(launch, "launch", lambda *_, **__: launched.append("workers") or 0)
    monkeypatch.setattr(main, "main", lambda **_: launched.append("one process") or 0)
    monkeypatch.setattr(signals, "ignore", list)  # which is for the end of a process
    assert start() == 0
    assert launched == ["workers" if WITH_AND_WITHOUT[flags] else "one process"]
