"""The deployment as the user runs it today: what a study starts from and is compared with."""

from typing import Annotated, Any

from pydantic import Field, JsonValue, field_validator

from tuner.schema import Schema, env_texts, flag_names
from tuner.space import Settings


class ServiceConfig(Schema):
    """The deployed service, as the exported compose file starts it; trials have names and ports of their own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Its container's name; the served model's name if null."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """The port of the host that it is published on."""
    listen: str = "127.0.0.1"
    """The address of the host that it is published on."""


class ModelConfig(Schema):
    """The deployment as it runs today: it is the baseline, and what no parameter searches stays as it is here."""

    id: str = Field(pattern=r"\S")
    """The model as the engine's command line names it: a repository id or a folder."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Flags by name: true gives ``--flag``, false ``--no-flag``, null leaves it out. Dashes are read as underscores."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables that are part of the configuration."""
    service: ServiceConfig = ServiceConfig()
    """Its name and port."""
    known_good: tuple[dict[str, JsonValue], ...] = ()
    """Parameter values that are known to work, on top of the deployment's; tried right after the baseline."""

    @field_validator("args", mode="before")
    @classmethod
    def _with_underscores(cls, raw: Any) -> Any:
        return flag_names(raw)

    @field_validator("known_good", mode="before")
    @classmethod
    def _all_with_underscores(cls, raw: Any) -> Any:
        return [flag_names(values) for values in raw] if isinstance(raw, list | tuple) else raw

    @field_validator("args")
    @classmethod
    def _named(cls, args: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for flag in ("served_model_name", "alias"):
            given = args.get(flag)
            names = given if isinstance(given, list) else [given or "unset"]
            if None in names or not all(str(name).strip() for name in names):
                raise ValueError(f"{flag} is a name, or a list of names; not {given}")
        return args

    @field_validator("env", mode="before")
    @classmethod
    def _texts(cls, raw: Any) -> Any:
        return env_texts(raw)

    @property
    def settings(self) -> Settings:
        """The deployed flags and variables."""
        return Settings(self.args, self.env)

    @property
    def served_name(self) -> str:
        """The name that clients ask for."""
        names = self.args.get("served_model_name") or self.args.get("alias") or self.id
        return str(names[0]) if isinstance(names, list) else str(names)
