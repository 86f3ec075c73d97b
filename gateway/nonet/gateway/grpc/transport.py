"""How long gRPC connections live and how often they may be pinged, as the library's channel arguments."""

from __future__ import annotations

from nonet.gateway.settings.grpc_settings import GrpcSettings


def channel_arguments(limits: GrpcSettings) -> list[tuple[str, int]]:
    """For the server, by the library's names; an age of 0 is none."""
    return [
        ("grpc.keepalive_time_ms", limits.keepalive_time),
        ("grpc.keepalive_timeout_ms", limits.keepalive_timeout),
        # Without it the library gives an idle connection a minute, whatever the keepalive says.
        ("grpc.http2.ping_timeout_ms", limits.keepalive_timeout),
        ("grpc.keepalive_permit_without_calls", int(limits.keepalive_permit_without_calls)),
        ("grpc.http2.max_pings_without_data", limits.http2_max_pings_without_data),
        # Of the pings that are received, in spite of its name.
        ("grpc.http2.min_ping_interval_without_data_ms", limits.http2_min_recv_ping_interval_without_data),
        ("grpc.http2.max_ping_strikes", limits.http2_max_ping_strikes),
        *(
            (f"grpc.{name}_ms", age)
            for name in ("max_connection_age", "max_connection_age_grace")
            if (age := getattr(limits, name))
        ),
    ]
