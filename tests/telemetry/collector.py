"""A real OTLP/HTTP receiver: what exporters send to it, decoded from protobuf."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


@dataclass
class Seen:
    """A span as it came over the wire."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    status: str
    message: str
    about: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, str, dict[str, Any]]]
    service: str


@dataclass
class Collector:
    """Where to send to (`url`), and what came."""

    url: str = ""
    raw: list[bytes] = field(default_factory=list)
    spans: list[Seen] = field(default_factory=list)
    points: list[tuple[str, dict[str, Any], Any]] = field(default_factory=list)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Seen:
        (span,) = self.named(name)
        return span

    def metric(self, name: str, **labels: Any) -> list[Any]:
        """The points of a metric with these labels (dots written as `_`), the latest export last."""
        wanted = labels.items()
        return [point for own, about, point in self.points if own == name and wanted <= {k.replace(".", "_"): v for k, v in about.items()}.items()]

    def take(self, path: str, body: bytes) -> bytes:
        self.raw.append(body)
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            for resource in traces.resource_spans:
                service = attributes(resource.resource.attributes).get("service.name", "")
                self.spans += [seen(span, service) for scope in resource.scope_spans for span in scope.spans]
            return ExportTraceServiceResponse().SerializeToString()
        metrics = ExportMetricsServiceRequest.FromString(body)
        for metric in (one for resource in metrics.resource_metrics for scope in resource.scope_metrics for one in scope.metrics):
            points = getattr(metric, metric.WhichOneof("data")).data_points
            self.points += [(metric.name, attributes(point.attributes), point) for point in points]
        return ExportMetricsServiceResponse().SerializeToString()


KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}


def seen(span: Any, service: str) -> Seen:
    events = [(event.name, attributes(event.attributes)) for event in span.events]
    links = [(link.trace_id.hex(), link.span_id.hex(), attributes(link.attributes)) for link in span.links]
    times = (span.start_time_unix_nano, span.end_time_unix_nano, STATUSES[span.status.code], span.status.message)
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return Seen(span.name, KINDS[span.kind], *ids, *times, attributes(span.attributes), events, links, service)


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in pairs}


def plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [plain(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = collector.take(self.path, gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
