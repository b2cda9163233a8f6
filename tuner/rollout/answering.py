"""Whether a new service answers as rightly as the old one did before it was stopped, and how far its answers are off.

The old one is asked twice, as a study asks the deployed configuration in two launches: what it does not repeat itself
is no fault of another.
"""

from dataclasses import dataclass
from pathlib import Path

from tuner.errors import MeasurementError
from tuner.host.files import write_whole
from tuner.launchers.docker.composed import RunningService
from tuner.load.target import Target
from tuner.quality.asking import Answers, answers
from tuner.quality.cases import Quality
from tuner.quality.comparing import compared
from tuner.records.answers import lost, told
from tuner.rollout.say import Say


@dataclass(frozen=True, slots=True)
class AskedTwice:
    """What the old service answered.

    Attributes:
        first: To each question.
        again: When it was asked once more.
    """

    first: Answers
    again: Answers


@dataclass(frozen=True, slots=True)
class Examiner:
    """Asks a service, and keeps its answers.

    Attributes:
        quality: The questions; where there are none, nobody is asked.
        kept_in: A folder of the rollout's.
        say: Told who is asked.
    """

    quality: Quality
    kept_in: Path
    say: Say

    def old(self, service: RunningService, model: str) -> AskedTwice | None:
        """All questions, twice; ``None`` where there are none. The answers are kept in ``answers-old*.json``."""
        first, again = (self._asked(service, model, "old", kept) for kept in ("old", "old-again"))
        return AskedTwice(first, again) if first and again else None

    def new(self, service: RunningService, model: str) -> Answers | None:
        """All questions, once; likewise in ``answers-new.json``."""
        return self._asked(service, model, "new", "new")

    def _asked(self, service: RunningService, model: str, which: str, kept: str) -> Answers | None:
        asks = self.quality.asks()
        if not asks:
            return None
        again = " again" if kept != which else ""
        self.say(f"asking the {which} service {len(asks)} questions{again} ({self.quality.name})")
        target = Target(service.url, service.headers, model)
        completions = answers(asks, target, self.quality.concurrency, lambda answered: None)
        found = Answers(questions=self.quality.digest, completions=completions)
        self.kept_in.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self.kept_in / f"answers-{kept}.json", found.model_dump_json(indent=1))
        return found

    def check(self, old: AskedTwice | None, new: Answers | None) -> None:
        """Nothing is to be lost: the exact test of ``tuner quality compare``; texts and log probabilities are told.

        Raises:
            MeasurementError: The new service answers less rightly, or drifts where that is to refuse it.
        """
        if old is None or new is None:
            return
        found = compared(self.quality, old.first.completions, old.again.completions, new.completions)
        for line in told(found):
            self.say(line)
        if found.worse:
            examples = "; ".join(example for family in found.worse for example in family.examples[:1])
            raise MeasurementError(f"{' and '.join(map(lost, found.worse))}: {examples}")
        self.say("it answers as rightly as the old service")
