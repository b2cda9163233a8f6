"""A study's evidence as the dashboard shows it: not copied, but read in place when somebody looks.

An artifact's id is the hexadecimal form of its path inside the study's folder; the dashboard allows no other
characters. Pictures and tables of a trial's requests are made when they are asked for. Secrets are masked on the way.
"""

import io
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from tuner.dashboard import keys as dashboard_keys
from tuner.errors import ConfigError
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord
from tuner.secrets import redacted

OF_A_STUDY = ("report.html", "profile.yaml", "config.yaml")
_OF_A_TRIAL = ("server.log", "record.json")
_OF_ITS_REQUESTS = ("requests.svg", "requests.csv")


def of_a_trial(folder: StudyFolder, record: TrialRecord) -> list[str]:
    """What there is to see of a trial, as paths inside the study's folder."""
    place = folder.path / "trials" / record.label
    names = [name for name in _OF_A_TRIAL if (place / name).exists()]
    names += _OF_ITS_REQUESTS if (place / "requests.jsonl").exists() else ()
    return [f"trials/{record.label}/{name}" for name in names]


def attribute(path: str) -> tuple[str, str]:
    """The system attribute by which the dashboard knows an artifact: name and value."""
    name, identity = PurePosixPath(path).name, path.encode().hex()
    kind = "text/plain" if name.endswith((".log", ".yaml")) else mimetypes.guess_type(name)[0] or "text/plain"
    return dashboard_keys.artifact(identity, name, kind)


@dataclass(frozen=True, slots=True)
class EvidenceStore:
    """An artifact store (``optuna.artifacts``) over a study's folder; it only reads.

    Attributes:
        folder: The study's.
    """

    folder: StudyFolder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The artifact's content.

        Raises:
            FileNotFoundError: There is no such thing in the folder, or it cannot be read.
        """
        path = PurePosixPath(bytes.fromhex(artifact_id).decode())
        return io.BytesIO(redacted(self._text(path)).encode())

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Never: what a study keeps, the study writes."""
        raise PermissionError("the evidence of a study is not changed from the dashboard")

    def remove(self, artifact_id: str) -> None:
        """Never, likewise."""
        raise PermissionError("the evidence of a study is not changed from the dashboard")

    def _text(self, path: PurePosixPath) -> str:
        if path.name in _OF_ITS_REQUESTS:
            return self._requests(path)
        root = self.folder.path.resolve()
        file = (root / path).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            raise FileNotFoundError(f"{path} is not in {self.folder.path}")
        return file.read_text("utf-8", errors="replace")

    def _requests(self, path: PurePosixPath) -> str:
        from tuner.analysis.frames import requests
        from tuner.analysis.sketch import requests_svg

        outcome = Outcome.of(self.folder)
        by_label: Mapping[str, TrialRecord] = {record.label: record for record in outcome.records}
        if path.parent.name not in by_label:
            raise FileNotFoundError(f"{path} is not in {self.folder.path}")
        try:
            frame = requests(outcome, [by_label[path.parent.name]])
        except ConfigError as error:
            raise FileNotFoundError(error.message) from error
        return str(frame.to_csv(index=False)) if path.suffix == ".csv" else requests_svg(frame)
