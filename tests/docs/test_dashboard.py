"""The dashboard asks only for metrics and labels that ownloop has, as Prometheus shows them."""

from __future__ import annotations

import json
import re
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from page_blocks import DOCS
from prometheus_client.parser import text_string_to_metric_families

from ownloop.telemetry import names
from ownloop.telemetry.metrics import Metering
from ownloop.telemetry.prometheus import metrics_text, prometheus_reader

DASHBOARD = json.loads((DOCS / "dashboards" / "ownloop.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
METRIC = re.compile(r"\b(?:ownloop|gen_ai)_\w+")
LABELS = {value for value in vars(names).values() if isinstance(value, str)}


class Recording:
    """A meter that remembers what was made with it."""

    def __init__(self, meter: Any) -> None:
        self._meter, self.made = meter, list[Any]()

    def __getattr__(self, name: str) -> Any:
        def create(*args: Any, **options: Any) -> Any:
            self.made.append(getattr(self._meter, name)(*args, **options))
            return self.made[-1]

        return create


def shown() -> set[str]:
    """The samples that a scrape gives once everything was measured."""
    reader = prometheus_reader()
    meter = Recording(MeterProvider(metric_readers=[reader]).get_meter("test"))
    Metering(meter)  # type: ignore[arg-type]
    for one in meter.made:
        next(getattr(one, verb) for verb in ("add", "record", "set") if hasattr(one, verb))(1)
    return {sample.name for family in text_string_to_metric_families(metrics_text(reader)) for sample in family.samples}


def test_every_metric_of_the_dashboard_is_measured() -> None:
    samples = shown()
    labels = {label.replace(".", "_") for label in LABELS}
    asked = {name for query in [*QUERIES, *(one["query"] for one in DASHBOARD["templating"]["list"])] for name in METRIC.findall(query)}
    assert sorted(name for name in asked if name not in samples and name not in labels) == []
    assert len({name for name in asked if name in samples}) >= 12


def test_every_label_of_the_dashboard_is_one_of_ours() -> None:
    used = set()
    for query in QUERIES:
        for group in re.findall(r"by \(([^)]*)\)", query):
            used |= {label.strip() for label in group.split(",")}
        used |= set(re.findall(r"(\w+)(?:=~|!=|=)\"", query))
    assert used - {"le"} <= {label.replace(".", "_") for label in LABELS}


def test_queries_are_whole_and_panels_say_what_they_show() -> None:
    assert all(query.count("(") == query.count(")") and query.count("{") == query.count("}") for query in QUERIES)
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in DASHBOARD["panels"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
