"""Whether a new service answers as rightly as the old one did before it was stopped."""

from dataclasses import dataclass
from pathlib import Path

from tuner.errors import MeasurementError
from tuner.host.files import write_whole
from tuner.launchers.docker.composed import RunningService
from tuner.load.target import Target
from tuner.quality.asking import Answers, answers
from tuner.quality.cases import Quality
from tuner.quality.comparing import compared
from tuner.records.answers import lost
from tuner.rollout.say import Say


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

    def asked(self, service: RunningService, model: str, which: str) -> Answers | None:
        """All questions; the answers are in ``answers-WHICH.json`` then.

        Args:
            service: Whom.
            model: The name that clients ask for.
            which: ``old`` or ``new``.
        """
        asks = self.quality.asks()
        if not asks:
            return None
        self.say(f"asking the {which} service {len(asks)} questions ({self.quality.name})")
        target = Target(service.url, service.headers, model)
        completions = answers(asks, target, self.quality.concurrency, lambda answered: None)
        found = Answers(questions=self.quality.digest, completions=completions)
        self.kept_in.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self.kept_in / f"answers-{which}.json", found.model_dump_json(indent=1))
        return found

    def check(self, old: Answers | None, new: Answers | None) -> None:
        """Nothing is to be lost: the exact test of ``tuner quality compare``.

        Raises:
            MeasurementError: The new service answers less rightly.
        """
        if old is None or new is None:
            return
        found = compared(self.quality, old.completions, None, new.completions)
        if found.worse:
            examples = "; ".join(example for family in found.worse for example in family.examples[:1])
            raise MeasurementError(f"{' and '.join(map(lost, found.worse))}: {examples}")
        self.say("it answers as rightly as the old service")
