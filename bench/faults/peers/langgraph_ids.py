"""LangGraph with answers that name their interrupt: `Command(resume={id: …})`, as its documentation shows it for several interrupts at once."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import langgraph_


class Peer(langgraph_.Peer):
    BY_ID = True
