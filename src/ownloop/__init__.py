"""You own the loop. ownloop makes it durable."""

from .app import App
from .errors import OwnloopError, Suspend
from .events import Event
from .intents import Intent
from .interrupts import Actor, ApprovalPolicy, Decision, Interrupt
from .step import Step
from .thread import Thread
from .tools import Happened, InDoubt, NotHappened, Outcome, Unknown, current_call, tool

__version__ = "0.1.0"
__all__ = [
    "Actor",
    "App",
    "ApprovalPolicy",
    "Decision",
    "Event",
    "Happened",
    "InDoubt",
    "Intent",
    "Interrupt",
    "NotHappened",
    "Outcome",
    "OwnloopError",
    "Step",
    "Suspend",
    "Thread",
    "Unknown",
    "current_call",
    "tool",
]
