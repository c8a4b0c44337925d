"""Reads what wandb writes offline: its records in the framing of LevelDB's log."""

import json
import struct
import time

from wandb.proto import wandb_internal_pb2

_HEADER, _BLOCK, _FRAME = 7, 32_768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_wandb(folder, num_files=1):
    """Returns id, name, tags, config, history, summary and exit codes of all files of a folder.

    wandb's own process closes a file some time after `finish` has returned.
    """
    deadline = time.monotonic() + 20
    while len((found := _read(folder))["exit_codes"]) < num_files:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def _read(folder):
    found = {"history": [], "summary": {}, "config": {}, "exit_codes": []}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in _records(path.read_bytes()):
            _take(record, found)
    return found


def _take(record, found):
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        found |= {"id": run.run_id, "name": run.display_name, "tags": list(run.tags)}
        found["config"] |= _items(run.config.update)
    elif kind == "history":
        found["history"].append(_items(record.history.item))
    elif kind == "summary":
        found["summary"] |= _items(record.summary.update)
    elif kind == "exit":
        found["exit_codes"].append(record.exit.exit_code)


def _items(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data):
    position, parts = _HEADER, []
    while position + _FRAME <= len(data):
        if _BLOCK - position % _BLOCK < _FRAME:  # the rest of a block is padding
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + _FRAME])
        parts.append(data[position + _FRAME : position + _FRAME + length])
        position += _FRAME + length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record
