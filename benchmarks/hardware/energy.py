"""Energy that the processor has used, where the machine tells (Intel's and AMD's RAPL on Linux)."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds up the counters of all processor packages.

    Attributes:
      works: Whether there is a counter that may be read; often only root may.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        """Looks for counters, one a package; what is inside a package is counted with it."""
        packages = [path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1]
        self._packages = [path for path in packages if _read(path / "energy_uj") is not None]
        self.works = bool(self._packages)

    def read(self) -> list[int | None]:
        """Returns the counters, in microjoules."""
        return [_read(path / "energy_uj") for path in self._packages]

    def joules_since(self, before: list[int | None]) -> float | None:
        """Returns the energy used since `read()`; None if the machine does not tell."""
        total = 0
        for path, start, end in zip(self._packages, before, self.read(), strict=True):
            if start is None or end is None:
                return None
            # A counter starts again from 0 after its range, within minutes under load.
            wrap = _read(path / "max_energy_range_uj") or 0
            total += end - start if end >= start else end + wrap - start
        return total / 1e6 if self.works else None


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
