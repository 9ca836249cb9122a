"""Write docs/reference/compatibility.md: python -m tests.wire.compatibility."""

from __future__ import annotations

from tests.wire.compatibility.document import PLACE, document

PLACE.parent.mkdir(parents=True, exist_ok=True)
PLACE.write_text(document(), "utf-8")
