"""How long gRPC connections live and how often they may be pinged, as the library's channel arguments."""

from __future__ import annotations

import dataclasses

__all__ = ["GrpcTransport"]


@dataclasses.dataclass(frozen=True, slots=True)
class GrpcTransport:
    """Times in milliseconds; the names and meanings are those of Triton's ``--grpc-*`` options.

    Args:
        keepalive_time: silence after which a client is pinged.
        keepalive_timeout: time for the answer to a ping, before the connection is closed.
        keepalive_permit_without_calls: whether pings go, and come, also while no call is in flight.
        http2_max_pings_without_data: pings without data in between that are sent; 0 for no limit.
        http2_min_recv_ping_interval_without_data: a ping of a client that comes earlier after the last one,
            without data in between, is a strike.
        http2_max_ping_strikes: strikes that close the connection; 0 for none.
        max_connection_age: after which a connection is to be replaced; 0 for never.
        max_connection_age_grace: for the calls in flight on a connection that is too old; 0 for no limit.

    Raises ValueError for a negative number.
    """

    keepalive_time: int = 7_200_000
    keepalive_timeout: int = 20_000
    keepalive_permit_without_calls: bool = False
    http2_max_pings_without_data: int = 2
    http2_min_recv_ping_interval_without_data: int = 1000
    http2_max_ping_strikes: int = 2
    max_connection_age: int = 0
    max_connection_age_grace: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must not be negative, got {getattr(self, field.name)}")

    def channel_arguments(self) -> list[tuple[str, int]]:
        """For the server, by the library's names."""
        arguments = [
            ("grpc.keepalive_time_ms", self.keepalive_time),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout),
            # Without it the library gives an idle connection a minute, whatever the keepalive says.
            ("grpc.http2.ping_timeout_ms", self.keepalive_timeout),
            ("grpc.keepalive_permit_without_calls", int(self.keepalive_permit_without_calls)),
            ("grpc.http2.max_pings_without_data", self.http2_max_pings_without_data),
            # Of the pings that are received, in spite of its name.
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                self.http2_min_recv_ping_interval_without_data,
            ),
            ("grpc.http2.max_ping_strikes", self.http2_max_ping_strikes),
        ]
        if self.max_connection_age:
            arguments.append(("grpc.max_connection_age_ms", self.max_connection_age))
        if self.max_connection_age_grace:
            arguments.append(("grpc.max_connection_age_grace_ms", self.max_connection_age_grace))
        return arguments
