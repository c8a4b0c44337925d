"""A headless Chromium, through pipes in the DevTools protocol: the standard library alone."""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
_SECS = 30.0


class Browser:
    """One page of a browser, and what happened there: `events`, name to their parameters."""

    def __init__(self, process: subprocess.Popen[bytes], requests: int, responses: int) -> None:
        self._process, self._requests, self._responses = process, requests, responses
        self._session: str | None = None
        self._rest, self._last_id = b"", 0
        self.events: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Shows a file at a width of the window, and forgets the events of before."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.events["Page.loadEventFired"]:
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Writes a PNG of what the window shows."""
        answer = self.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last_id:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def attach(self) -> None:
        """Opens a page, and listens to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + _SECS
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._responses], [], [], max(left, 0))
            chunk = os.read(self._responses, 1 << 16) if ready else b""
            assert chunk, f"the browser says nothing; its exit code is {self._process.poll()}"
            self._rest += chunk
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events[message["method"]].append(message["params"])
        return message


@contextlib.contextmanager
def running(directory: str | Path) -> Iterator[Browser]:
    """Gives a `Browser` with an empty page; its profile lies in the directory."""
    if CHROMIUM is None:
        raise FileNotFoundError("Chromium is not installed: apt-get install chromium")
    ours, theirs = os.pipe(), os.pipe()  # what we write, what we read: (read end, write end)
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={directory}"]
    # The browser reads from descriptor 3 and writes to 4, whatever the numbers are here.
    shell = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", shell, "bash", *command], pass_fds=(ours[0], theirs[1]),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(ours[0])
    os.close(theirs[1])
    try:
        browser = Browser(process, ours[1], theirs[0])
        browser.attach()
        yield browser
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours[1])
        os.close(theirs[0])
