"""Settings of the scheduler: what may wait, how careful it is, where work goes and when it is given up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nonet.gateway.settings.types import PositiveSeconds, Section


class SchedulerSettings(Section):
    """How work is queued, batched and spread over this machine's cores."""

    lanes: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Executions that run at the same time on the CPU, one thread each. 0 takes the CPU quota "
        "of the container (cgroup) or the cores this process may use. More than that adds latency only.",
    )
    max_queue: int = Field(
        default=1024,
        ge=1,
        description="Waiting requests per model; one more is refused with 503 and Retry-After. Deadlines "
        "normally refuse earlier; this bounds memory when callers give none.",
    )
    default_timeout: PositiveSeconds = Field(
        default=30.0,
        description="Deadline in seconds for callers that give none (X-Request-Timeout-Ms, gRPC deadline). "
        "Never unlimited: a forgotten request must not wait for ever.",
    )
    max_timeout: PositiveSeconds = Field(
        default=600.0,
        description="Longest deadline a caller may ask for, in seconds; a longer one is answered 400.",
    )
    safety_factor: float = Field(
        default=1.05,
        ge=1.0,
        le=10.0,
        description="Predicted times are multiplied by this before they are held against a deadline. Larger "
        "values refuse earlier and miss fewer deadlines on a machine shared with others.",
    )

    placement: Literal["fastest", "cheapest", "greenest"] = Field(
        default="fastest",
        description="Which device computes a request where several can in time. fastest: whichever is free. "
        "cheapest and greenest: a device leaves to others what they can do in time for less money or "
        "energy, by the price and watts that are declared here for this process and in the topology for "
        "services elsewhere. Answers then come later, within their deadlines.",
    )
    watts: float = Field(
        default=0.0,
        ge=0.0,
        le=1e6,
        description="Power that this machine draws while all lanes are busy, in watts, for "
        "nonet_energy_joules_total and placement. Ignored by the metric where the processor measures its "
        "energy (RAPL). 0 for not known.",
    )
    price: float = Field(
        default=0.0,
        ge=0.0,
        le=1e6,
        description="What an hour of this machine costs with all lanes busy, in any one currency. 0 for not "
        "known.",
    )
    hedging: bool = Field(
        default=True,
        description="Whether an execution that is later than 99 of 100 is run on a second device, too, if "
        "one is free and would be in time; the first answer counts. At most 2 in 100 executions are, and "
        "none where there is one device only.",
    )
    ejection: bool = Field(
        default=True,
        description="Whether a device that is slow or fails beyond its peers is left alone for a while: 5 "
        "seconds, twice as long each further time, at most half of the devices of a service.",
    )
    execution_limit: PositiveSeconds = Field(
        default=60.0,
        description="Seconds after which an execution in this process counts as hung, but at least five "
        "times what was predicted for it: its requests are answered 503 (EXECUTION_HUNG), another thread "
        "takes its lane. Above the longest honest execution, which is one step of a model that works in "
        "steps.",
    )
    max_lost_lanes: int = Field(
        default=4,
        ge=0,
        le=1024,
        description="Hung executions that may go on in threads of their own before the process says that "
        "it is not ready and takes no more work for its lanes. Each may hold a core and the memory of its "
        "model; only a restart of the process ends it.",
    )

    @model_validator(mode="after")
    def _default_is_allowed(self) -> SchedulerSettings:
        if self.default_timeout > self.max_timeout:
            raise ValueError(f"default_timeout must not exceed max_timeout, {self.max_timeout}")
        return self
