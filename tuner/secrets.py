"""Secrets: read from where they are kept, handed to what needs them, and redacted from everything that is written.

Nothing of tuner's that is written holds a secret's value. Configurations name secrets; whatever comes from outside (a
server's log, its answers, the container engine's complaints) is redacted where it is taken in, and every file of a
study once more where it is written. There is one list of values for the whole process: those of the environment, and
those that ``hide`` was told. Where no list helps, a secret is known by its shape or by the name in front of it. A mask
too many costs a word; a key that got out costs all of them.

Light, since the load worker and the process launcher's guard import it as well.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import quote

from tuner.errors import ConfigError
from tuner.reading import bytes_of

MASK = "***"
MASK_IN_FILES = "(redacted)"
"""YAML reads a word that begins with an asterisk as an alias."""
_SHORTEST = 8

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEYS?|PASSWORDS?|PASSWD|PASSPHRASE|PASSKEY|SECRETS?|CREDENTIALS?|CREDS?|WEBHOOKS?|AUTHORIZATION"
    r"|BEARER)(?:_|$)|(?:PASSWORD|PASSWD|APIKEY|SECRET(?:KEY)?|(?:API|AUTH|ACCESS|BOT|HF|GITHUB|GITLAB)TOKEN)$"
    r"|(?:^|_)(?:TOKEN|KEY|PAT|DSN|PASS|PWD|PW|AUTH|COOKIE|JWT|SK|SAS|HOOK|PRIVATE)$"
    r"|(?:^|_)(?:AUTH_(?:CONFIG|HEADERS?)|SERVICE_ACCOUNT_(?:JSON|KEY)|DB_CONN)$|(?:^|_)CONN(?:ECTION)?_STR(?:ING)?$"
    r"|(?:^|_)(?:DATABASE|DB|SQLALCHEMY|JDBC|POSTGRES|POSTGRESQL|PG|MYSQL|MARIADB|MONGO|MONGODB|CLICKHOUSE|REDIS|AMQP"
    r"|ELASTIC|ELASTICSEARCH|NATS|KAFKA|RABBITMQ|BROKER|CONNECTION|HOOK|SAS)_(?:URL|URI|STRING)$"
)
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:TOKENS?|KEYS?|PAT|DSN|PASS|PWD|PW|AUTH|(?:DATABASE|DB|REDIS|MONGO|PG|HOOK)_(?:URL|URI))(?:_[A-Z]+)?$"
    r"|(?<!BY)(?<!COM)PASS$|[A-Z]TOKEN$"
)
"""One more word may follow in an environment variable (``HF_TOKEN_WORK``), not in a flag (``token_threshold``)."""
_NO_SECRET = re.compile(
    r"^(?:OLD)?PWD$|(?:^|_)(?:BOS|EOS|PAD|UNK|SEP|CLS|MASK|STOP|SPECIAL|NEXT|PER|IMAGE|AUDIO|VIDEO|MM|KV|DRAFT|PUBLIC|GPG"
    r"|SORT|CACHE|ROUTING|CUDAGRAPH|FUSE|NUM|MAX|MIN|BY)_(?:TOKENS?|KEYS?|PASS)$"
    r"|_(?:PATH|FILE|DIR|HOME|PORT|HOST|NAME|MODEL|ID|IDS|LEN|LENGTH|COUNT|LIMIT|SIZE|THRESHOLD|ENV|TYPE|ENABLED|MODE|TTL"
    r"|BUDGET|CACHE|METHOD|VERSION)$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NUMBER = re.compile(r"_?\d+(?=_|$)")
_API_KEY = re.compile(r"(?:^|_)API_?KEY(?:_|$)")
_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$")

_PLAIN = re.compile(
    r"[-+]?[\d.,:_]*(?:e[-+]?\d+)?|true|false|yes|no|on|off|none|null|(?:~|\.{0,2})/[\w.@ -]+(?:/[\w.@ -]*)+",
    re.IGNORECASE,
)
"""Numbers, ports, switches, and paths of more than one level."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""A model's name."""

_VALUE = r"(?!(?:[\d.,]+|true|false|none|null)\b)[^\s\"'\],}){]{4,}"
_QUOTED = r"(?:(?<=\")[^\"\\\n]{4,}(?=\")|(?<=')[^'\\\n]{4,}(?='))"
_ASSIGNED = re.compile(
    r"(?<![\w-])-*(?P<name>[A-Za-z][\w-]*)(?P<between>\\*[\"']?\s*[=:]\s*[\\\[\"'(]*)" rf"(?:{_QUOTED}|{_VALUE})",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"(?:key|token|secret|pass|pwd|_pw|cred|auth|cookie|jwt|dsn|pat|hook|bearer|private|_sk|sas|conn|account|ur[li])"
    r"[\w-]*\\*[\"']?\s*[=:]"
)
"""In small letters, what every name of a secret and the sign behind it have; far faster to look for than the name."""
_FLAG = re.compile(rf"--(?P<name>[A-Za-z][\w-]*)(?P<between>[\"',\s]+){_VALUE}", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=-]{6,}", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)(?P<user>[^\s/:@\"']*:|(?=[^\s/:@\"']{20,}@))(?P<password>[^\s/\"']+)(?=@)")
"""Behind a user's name; or alone where it is so long that it is none."""
_IN_QUERY = re.compile(
    r"(?<=[?&])(?P<name>(?:\w+_)?(?:token|key|sig|signature|secret|password|credential)|X-Amz-[\w-]+)=[^\s&\"'#]{6,}",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|token|digest)\s+)?|\bbearer\s+(?=\S*\d))[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_KEY_STARTS = re.findall(
    r"\S+",
    "hf_ sk- sk_live_ sk_test_ rk_live_ ghp_ gho_ ghr_ ghs_ ghu_ github_pat_ glpat- nvapi- pypi- gsk_ xai- npm_ hvs. "
    "dop_v1_ ya29. r8_ pplx- tvly- shpat_ lin_api_ dckr_pat_ AKIA ASIA AIza AGE-SECRET-KEY-1",
)
_KEY_SHAPE = re.compile(
    rf"\b(?:{'|'.join(map(re.escape, _KEY_STARTS))})[\w-]{{16,}}|\bx(?:ox[abeoprs]|app)-[\w-]{{10,}}"
    r"|\b(?:SG\.[\w-]{16,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,})\.[\w-]*|\b\d{8,10}:AA[\w-]{33}"
    r"|\b(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[\w/-]{10,}"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\w+/=\s\\]*"
)
_KEY_HINTS = (*_KEY_STARTS, "xox", "xapp-", "SG.", ".eyJ", ":AA", "/services/", "/webhooks/", "PRIVATE KEY-----")
"""One of these is in every text that ``_KEY_SHAPE`` matches."""
_ONE_WORD = frozenset({"password", "passwd", "passphrase", "secret", "apikey", "cookie"})
"""Of names in running text, these need no second word: ``key:`` and ``token:`` occur in many an innocent sentence."""

_listed: dict[str, None] = {}


def is_secret(name: str) -> bool:
    """Whether a variable or flag of this name holds a secret: ``HF_TOKEN``, ``DATABASE_URL``, ``api_key``."""
    words = _HUMP.sub("_", name).upper().replace("-", "_")
    upper = _NUMBER.sub("", words)
    if _NO_SECRET.search(upper) and not _API_KEY.search(upper):
        return False
    return bool(_SECRET_NAME.search(upper) or (name.isupper() and _SECRET_VARIABLE.search(upper)))


def is_api_key(name: str) -> bool:
    """Whether it is a key that clients must show; vLLM has printed its own, and written it into its compile cache."""
    return _API_KEY.search(name.upper()) is not None


def is_plain(value: str) -> bool:
    """Whether a value is nothing to hide whatever it is called: empty, a number, a port, a switch, a path."""
    return _PLAIN.fullmatch(value.strip()) is not None


def has_shape(value: str) -> bool:
    """Whether a value holds what looks like a key, an HTTP header with one or a URL with a password, however called."""
    return any(shape.search(value) for shape in (_KEY_SHAPE, _HEADER, _IN_URL, _IN_QUERY))


def hide(values: Iterable[str]) -> None:
    """Put values on this process's list: from now on ``redacted`` and ``redacted_file`` replace them."""
    _listed.update(dict.fromkeys(_worth_hiding(values)))


def hidden() -> tuple[str, ...]:
    """This process's list, the environment's secrets included; the longest first, so that none is cut in two."""
    return _ordered([*_listed, *_of_environment(tuple(os.environ.items()))])


def redact(text: str, values: Iterable[str]) -> str:
    """The text with each of these values masked."""
    return _replaced(text, values, MASK)


def redacted(text: str) -> str:
    """Text for people with every secret masked: by its value, by its shape, or by the name in front of it."""
    text = redact(text, hidden())
    text = _FLAG.sub(_unless_innocent, _assigned_replaced(text))
    if "bearer" in text.lower():
        text = _BEARER.sub(rf"\g<1>{MASK}", text)
    return _shapes_replaced(text, MASK)


def redacted_file(text: str) -> str:
    """A JSON or YAML file with every secret replaced by its value or its shape; it can still be read back."""
    return _shapes_replaced(_replaced(text, hidden(), MASK_IN_FILES), MASK_IN_FILES)


def of_headers(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Every header value, whole and without its scheme (``Bearer``): a server may quote the token that it refuses."""
    whole = [value.strip() for value in headers.values()]
    bare = [value.split()[-1] for value in whole if value]
    return _worth_hiding([*whole, *bare])


@dataclass(frozen=True)
class Secrets:
    """The secrets that are known here: of the environment and of a ``.env`` file, which wins.

    Attributes:
        values: All variables by name, secret or not; never shown.
        source: The file, for messages.
        named_as_secret: Variables whose values are hidden although their names do not look secret.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: Path = Path(".env")
    named_as_secret: frozenset[str] = frozenset()

    @classmethod
    def of(cls, file: Path, environ: Mapping[str, str] | None = None, named_as_secret: Iterable[str] = ()) -> "Secrets":
        """Those of a file, if it is there, and of the environment."""
        given = dict(os.environ if environ is None else environ)
        return cls({**given, **_read(file)}, file, frozenset(named_as_secret))

    @property
    def hidden(self) -> tuple[str, ...]:
        """The values to mask, the longest first; never a port, a path, a model's name or a switch.

        A number is one only where somebody said so.
        """
        listed = [value for name in self.named_as_secret if (value := self.get(name))]
        numbers = [value for value in listed if _is_long_number(value)]
        return _ordered([*_secret_values(self.values), *_worth_hiding(v for v in listed if not _public(v)), *numbers])

    def get(self, name: str) -> str | None:
        """A variable's value; ``None`` where it is not set, or empty."""
        return self.values.get(name) or None

    def named(self, names: Iterable[str]) -> dict[str, str]:
        """Those of these variables that are set."""
        return {name: value for name in names if (value := self.get(name))}


_is_secret = cache(is_secret)


def _public(value: str) -> bool:
    return is_plain(value) or _REPOSITORY.fullmatch(value) is not None


def _is_long_number(value: str) -> bool:
    """Whether it is a number that no port and no ordinary setting is as long as."""
    return len(value) >= _SHORTEST and re.fullmatch(r"[-+]?[\d.,:_]+", value) is not None


def _secret_values(variables: Mapping[str, str]) -> tuple[str, ...]:
    """What is secret in a set of variables: by the variable's name, and the password in any URL."""
    named = [value for name, value in variables.items() if _is_secret(name)]
    passwords = [found["password"] for value in variables.values() for found in _IN_URL.finditer(value)]
    return _worth_hiding([*named, *passwords])


@lru_cache(maxsize=4)
def _of_environment(variables: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The environment seldom changes, and a report asks thousands of times."""
    return _secret_values(dict(variables))


def _worth_hiding(values: Iterable[str]) -> tuple[str, ...]:
    """Line by line, without those too short to be a secret, or plain, which would be cut out of innocent words."""
    lines = (line.strip() for value in values for line in value.splitlines())
    return tuple(dict.fromkeys(line for line in lines if len(line) >= _SHORTEST and not is_plain(line)))


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(values), key=len, reverse=True))


def _replaced(text: str, values: Iterable[str], mask: str) -> str:
    for value in values:
        for form in _forms(value):
            text = text.replace(form, mask)
        if len(words := value.split()) > 1:
            text = re.sub(r"[\s\\]+".join(map(re.escape, words)), mask, text)  # YAML breaks a long line between words
    return text


def _forms(value: str) -> Iterator[str]:
    """A value as it stands in text, in JSON, in YAML, in Python and in a URL."""
    in_yaml = "".join(each if each.isascii() else f"\\x{ord(each):02X}" for each in value)
    forms = (
        value,
        json.dumps(value)[1:-1],
        value.replace("'", "''"),
        in_yaml,
        repr(value)[1:-1],
        quote(value, safe=""),
    )
    yield from dict.fromkeys(forms)


def _assigned_replaced(text: str) -> str:
    """Looks only where a hint is: a server that prints a hundred megabytes does not wait for us."""
    pieces, done = [], 0
    for hint in _HINT.finditer(_lower(text)):
        found = _ASSIGNED.match(text, _beginning(text, hint.start()))
        if found and found.start() >= done:
            pieces += [text[done : found.start()], _unless_innocent(found)]
            done = found.end()
    return "".join([*pieces, text[done:]])


def _beginning(text: str, place: int) -> int:
    """Where the word begins that this place is in."""
    while place and (text[place - 1].isalnum() or text[place - 1] in "_-"):
        place -= 1
    return place


def _lower(text: str) -> str:
    """Small letters, each in its place."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(each.lower() if each.isascii() else each for each in text)


def _shapes_replaced(text: str, mask: str) -> str:
    lower = text.lower()
    if "bearer" in lower or "authorization" in lower:
        text = _HEADER.sub(rf"\g<1>{mask}", text)
    if "://" in text or "?" in text:
        text = _IN_QUERY.sub(rf"\g<name>={mask}", _IN_URL.sub(rf"\g<user>{mask}", text))
    return _KEY_SHAPE.sub(mask, text) if any(hint in text for hint in _KEY_HINTS) else text


def _unless_innocent(found: re.Match[str]) -> str:
    name = found["name"]
    long_enough = name.isupper() or "_" in _HUMP.sub("_", name) or "-" in name or name.lower() in _ONE_WORD
    if not (long_enough and _is_secret(name)):
        return found[0]
    return found[0][: found.end("between") - found.start()] + MASK


def _read(file: Path) -> dict[str, str]:
    """A ``.env`` file as Docker Compose reads it: quotes, comments, ``export``; nothing is interpolated.

    Raises:
        ConfigError: Something is there that cannot be read: what it holds could not be hidden.
    """
    try:
        lines = bytes_of(file).decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        fix = "make it a file, or say where the secrets are: secrets.file=PATH"
        raise ConfigError(f"{file} cannot be read: {error.strerror}", place="secrets.file", fix=fix) from error
    found = (_LINE.match(line) for line in lines)
    return {match[1]: _value(match[2].strip()) for match in found if match}


def _value(text: str) -> str:
    if text[:1] in ("'", '"') and text.rfind(text[0]) > 0:
        return text[1 : text.rfind(text[0])]
    return re.split(r"\s#", text, maxsplit=1)[0].strip()
