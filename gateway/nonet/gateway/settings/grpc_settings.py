"""The settings of the gRPC face; those of the connection bear Triton's names and, like them, count
milliseconds."""

from __future__ import annotations

from pydantic import Field

from nonet.gateway.settings.types import KIB, MIB, Milliseconds, Section


class GrpcSettings(Section):
    """Limits of the gRPC face. From ``keepalive_time`` on they are Triton's ``--grpc-*`` options, in ms."""

    max_message_bytes: int = Field(
        default=64 * MIB,
        ge=KIB,
        description="Largest gRPC message in bytes; more is answered RESOURCE_EXHAUSTED. As max_body_bytes.",
    )
    max_concurrent_streams: int = Field(
        default=1024,
        ge=1,
        description="Calls in flight on one connection; further ones wait in the client.",
    )
    max_concurrent_rpcs: int = Field(
        default=4096,
        ge=1,
        description="Calls in flight on all connections together; further ones are answered "
        "RESOURCE_EXHAUSTED. Bounds how many messages can be in memory before they are looked at.",
    )
    stream_window: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="Requests of one ModelStreamInfer stream that run at the same time; while so many are "
        "open the stream is read no further, which pushes back on the client.",
    )
    keepalive_time: Milliseconds = Field(
        default=7_200_000,
        ge=1,
        description="After so many milliseconds without a word from a client it is sent a ping. Lower it "
        "where something on the way forgets idle connections.",
    )
    keepalive_timeout: Milliseconds = Field(
        default=20_000,
        ge=1,
        description="Milliseconds for the answer to a ping; without one the connection is closed.",
    )
    keepalive_permit_without_calls: bool = Field(
        default=False,
        description="Whether the server pings also while no call is in flight, and takes pings of clients "
        "then as often as during calls (else one in two hours).",
    )
    http2_max_pings_without_data: int = Field(
        default=2,
        ge=0,
        le=2**31 - 1,
        description="Pings that the server sends without data or headers in between; 0 sets no limit.",
    )
    http2_min_recv_ping_interval_without_data: Milliseconds = Field(
        default=1000,
        description="Milliseconds between pings of a client while the server sends it nothing; a ping that "
        "comes earlier is a strike. Triton's default, 300000, cuts off a client that pings during one long "
        "call.",
    )
    http2_max_ping_strikes: int = Field(
        default=2,
        ge=0,
        le=2**31 - 1,
        description="Strikes after which the connection is closed (UNAVAILABLE, Too many pings); 0 never "
        "does.",
    )
    max_connection_age: Milliseconds = Field(
        default=0,
        description="Milliseconds after which a connection is asked to make way for a new one, so that "
        "clients spread anew behind a balancer; 0 lets connections live.",
    )
    max_connection_age_grace: Milliseconds = Field(
        default=0,
        description="Milliseconds that calls in flight have when their connection is too old; 0 lets them "
        "end.",
    )
