"""The processor's energy, where the machine measures it (RAPL of Intel and AMD on Linux)."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds up the energy counters of all processor packages.

    Args:
      root: Directory of the counters.

    Attributes:
      works: Whether there is a readable counter; often only root may read them.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        # Counters of parts of a package, such as intel-rapl:0:0, are included in the package's.
        packages = [path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1]
        self._packages = [path for path in packages if _read(path / "energy_uj") is not None]
        self.works = bool(self._packages)

    def read(self) -> list[int | None]:
        """Returns the counters, in microjoules."""
        return [_read(path / "energy_uj") for path in self._packages]

    def joules_since(self, before: list[int | None]) -> float | None:
        """Returns the energy used since a `read()`, or None if the machine does not measure it.

        Args:
          before: Result of that `read()`.
        """
        total = 0
        for path, start, end in zip(self._packages, before, self.read(), strict=True):
            if start is None or end is None:
                return None
            # A counter wraps around at the end of its range, within minutes under load.
            wrap = _read(path / "max_energy_range_uj") or 0
            total += end - start if end >= start else end + wrap - start
        return total / 1e6 if self.works else None


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
