"""The trainings of SnapGen's emoji family, one after another: teacher, decoder, student, few steps.

Each goes on from its checkpoint (`--resume`) for as many minutes as given; `--variant final` is the last
sitting, in which the rate falls to 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nonet.research.snapgen.config import SMALL, UNetConfig
from nonet.research.snapgen.learning import Pace
from nonet.research.snapgen.teacher import TeacherConfig

#: Kinds of training.
TEACHER, DECODER, STUDENT, FEW_STEP = "teacher", "decoder", "student", "few_step"


@dataclass(frozen=True)
class Preset:
    """One training.

    Attributes:
        kind: what is trained.
        run: folder of its checkpoint; presets of other sizes of picture have others.
        pace: of its steps.
        side: of the pictures in pixels.
        minutes: of a sitting, where none are given.
        teacher, student: of the networks.
        teacher_run: whose averaged weights teach a student.
        student_run: whose averaged weights a few-step training begins with.
        steps: of the sampler that a few-step network is made for.
        limit: steps of a training that only proves the path, else 0.
    """

    kind: str
    run: str
    pace: Pace
    side: int = 64
    minutes: float = 30.0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: UNetConfig = SMALL
    teacher_run: str = "emoji_teacher"
    student_run: str = "emoji"
    steps: int = 4
    limit: int = 0


_TEACHER = Pace(batch=64, rate=1e-3, muon_rate=2e-3, warmup=30, average=0.9995)
_STUDENT = Pace(batch=48, rate=1e-3, muon_rate=2e-3, warmup=50, average=0.9995)
_DECODER = Pace(batch=8, parts=1, rate=2e-3, average=0.998, weight_decay=0.0)
# One part: the heads of the discriminator are swapped for frozen ones within a step.
_FEW_STEP = Pace(batch=96, parts=1, rate=2e-4, warmup=50, average=0.998, drop=0.0)
# For minutes of a GPU: the bank lies on it, a batch fills it. Unverified there.
_LARGE = TeacherConfig(width=384, layers=12)
_FAST = Pace(batch=768, parts=1, rate=1e-3, warmup=500, average=0.9995)

PRESETS: dict[str, Preset] = {
    "emoji_teacher": Preset(TEACHER, "emoji_teacher", _TEACHER),
    "emoji_decoder": Preset(DECODER, "emoji_decoder", _DECODER, minutes=20.0),
    "emoji": Preset(STUDENT, "emoji", _STUDENT),
    "emoji_few_step": Preset(FEW_STEP, "emoji_few_step", _FEW_STEP, minutes=20.0),
    "emoji_teacher_128": Preset(TEACHER, "emoji_teacher_128", _FAST, side=128, minutes=6.0, teacher=_LARGE),
    "emoji_decoder_128": Preset(DECODER, "emoji_decoder_128", _DECODER, side=128, minutes=3.0),
    "emoji_128": Preset(
        STUDENT, "emoji_128", _FAST, side=128, minutes=6.0, teacher=_LARGE, teacher_run="emoji_teacher_128"
    ),
}
