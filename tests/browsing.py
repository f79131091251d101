"""What tests in a browser share."""

from __future__ import annotations

from typing import Any

from harness import ROOT

import natsproc as sdk

PICTURES = ROOT / "test-artifacts" / "browser"  # to be looked at


def line(*can: str, on: str = "*/*", name: str = "ann", **options: Any) -> str:
    """A credential in one line."""
    return sdk.grant(name, can or ["watch", "send", "control"], on.split(","), **options).line
