"""Write docs/openapi.json, the OpenAPI document of the server: `python tools/openapi.py`. A test compares them."""

from __future__ import annotations

import json
from pathlib import Path

from ownloop import App
from ownloop.server import create

PLACE = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def document() -> str:
    """What the server answers at /openapi.json, as it is committed."""
    return json.dumps(create(App("memory://")).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PLACE.write_text(document(), encoding="utf-8")
    print(f"{PLACE}: {len(document()):,} characters")
