"""Where a command writes: data to stdout, everything else to stderr, text from logs inert on both."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ..events import Json
from ..inert import inert

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Span = str | tuple[str, str]
"""A piece of a line: text, or text and its style."""
Form = Literal["plain", "json", "jsonl"]
VERSION = 1
"""Of the JSON that commands print; it rises when a field changes its meaning or goes."""
_ASCII = str.maketrans({"✓": "+", "✗": "x", "▸": ">", "→": "->", "·": "-", "…": "...", "“": '"', "”": '"', "–": "-", "■": "#", "━": "=", "─": "-"})


class Paper:
    """Stdout and stderr of one command."""

    def __init__(self, form: Form = "plain", *, color: bool = True, quiet: bool = False, verbose: int = 0) -> None:
        self.form = form
        self.quiet, self.verbose, self.has_color = quiet, verbose, color
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")

    @cached_property
    def out(self) -> Console:
        return self._console(stderr=False)

    @cached_property
    def err(self) -> Console:
        return self._console(stderr=True)

    def _console(self, stderr: bool) -> Console:
        from rich.console import Console

        color = None if self.has_color else True
        return Console(stderr=stderr, no_color=color, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @property
    def is_plain(self) -> bool:
        return self.form == "plain"

    @property
    def is_wide(self) -> bool:
        """Whether a person looks at it, so that lines are fitted to a width."""
        return bool(self.out.is_terminal)

    # ---- data ------------------------------------------------------------------------------------------------------------------

    def line(self, *spans: Span, indent: int = 0) -> None:
        """A line of data. On a terminal it is wrapped to the width, further lines set in by `indent`."""
        text = self.text(*spans)
        if not self.is_wide or not indent or text.cell_len <= self.out.width:
            self.out.print(text, soft_wrap=True)
            return
        head, body = text[:indent], text[indent:]
        for number, part in enumerate(body.wrap(self.out, max(20, self.out.width - indent))):
            part.rstrip()
            self.out.print((head if number == 0 else self.text(" " * indent)) + part, soft_wrap=True)

    def text(self, *spans: Span) -> Text:
        """Spans as one text, each made inert."""
        from rich.text import Text

        text, is_unicode = Text(end=""), (self.out.encoding or "").lower().startswith("utf")
        for one in spans:
            words, style = (one, "") if isinstance(one, str) else one
            safe = inert(words)
            text.append(safe if is_unicode else safe.translate(_ASCII), style or None)
        text.end = "\n"
        return text

    def columns(self, titles: Sequence[str], rows: Sequence[Sequence[Span]], shrink: int | None = None) -> None:
        """Aligned columns under their titles; on a terminal the column `shrink` gives way so that a row is one line."""
        table = [[self.text(cell) for cell in row] for row in ([(title, "dim") for title in titles], *rows)]
        widths = [max(row[place].cell_len for row in table) for place in range(len(titles))]
        if shrink is not None and self.is_wide:
            rest = sum(widths) - widths[shrink] + 2 * (len(widths) - 1)
            widths[shrink] = min(widths[shrink], max(12, self.out.width - rest))
        for row in table:
            self.out.print(_joined(row, widths), soft_wrap=True)

    def json(self, value: Mapping[str, Any]) -> None:
        """One JSON object on one line, ASCII only, so that nothing in it can act on a terminal."""
        text = json.dumps(plain(value), ensure_ascii=True, separators=(", ", ": "), default=str).replace("\x7f", "\\u007f")
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def object(self, value: Mapping[str, Any]) -> None:
        """The one object of a command under --json."""
        self.json({"version": VERSION, **value})

    # ---- logs ------------------------------------------------------------------------------------------------------------------

    def note(self, *spans: Span) -> None:
        """Something to know, on stderr; -q keeps it quiet."""
        if not self.quiet:
            self.err.print(self.text(*spans), soft_wrap=True)

    def error(self, what: str, next: Iterable[str]) -> None:
        self.err.print(self.text(("error: ", "bold red"), what), soft_wrap=True)
        for number, command in enumerate(next):
            self.err.print(self.text(("next:  " if number == 0 else "       ", "dim"), command), soft_wrap=True)

    def listen_to_logs(self) -> None:
        """Show the library's own log on stderr: warnings, with -v more, with -q errors only."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_InertFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S", show_trace=self.verbose > 0))
        level = logging.ERROR if self.quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(self.verbose, 2)]
        logging.basicConfig(handlers=[handler], level=level, force=True)


class _InertFormatter(logging.Formatter):
    def __init__(self, form: str, times: str, *, show_trace: bool) -> None:
        super().__init__(form, times)
        self._show_trace = show_trace

    def format(self, record: logging.LogRecord) -> str:
        if not self._show_trace:
            record = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        return inert(super().format(record), keep="\n")


def _joined(row: Sequence[Text], widths: Sequence[int]) -> Text:
    from rich.text import Text

    line = Text()
    for place, cell in enumerate(row):
        is_last = place == len(row) - 1
        if cell.cell_len > widths[place]:
            cell.truncate(widths[place], overflow="ellipsis")
        line.append_text(cell)
        line.append("" if is_last else " " * (widths[place] - cell.cell_len + 2))
    return line


def plain(value: Any) -> Json:
    """Dataclasses, times and the like as JSON: times as ISO 8601 in UTC, durations in seconds."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value) if one.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value
