"""OutputSettings: what a run shows, and the files that it writes."""

from __future__ import annotations

import dataclasses

from gradloop.engine.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """What a run shows, and the files that it writes."""

    run_dir: str | None = option(
        None, "output", "folder of this run", default_text="a new one in runs/"
    )
    profile: str | None = option(
        None, "output", "A,B: profile steps A to B, both included, counted from 1"
    )
