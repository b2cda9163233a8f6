"""Variables in text, as Compose fills them in: ``$X``, ``${X}``, ``${X:-y}``, ``${X-y}``, ``${X:?said}``, ``${X:+y}``.

Defaults nest. What is not set and has no default is empty, as Compose makes it, and is noted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Variables:
    """Fills in variables, and remembers what could not be.

    Attributes:
        values: Those that are set.
        literal: Whether ``$$`` stands for a dollar sign, as in a compose file; a shell means something else by it.
        about: What is being filled in, such as a service.
        noted: A sentence for each that is not set, with what it was found in.
    """

    values: Mapping[str, str]
    literal: bool = True
    about: str = ""
    noted: dict[tuple[str, str], None] = field(default_factory=dict)

    def of(self, about: str) -> list[str]:
        """What was noted there."""
        return [sentence for place, sentence in self.noted if place == about]

    def fill(self, text: str) -> str:
        """The text with its variables replaced."""
        filled, at = [], 0
        while (dollar := text.find("$", at)) >= 0:
            filled.append(text[at:dollar])
            piece, at = self._at(text, dollar)
            filled.append(piece)
        return "".join([*filled, text[at:]])

    def _at(self, text: str, dollar: int) -> tuple[str, int]:
        """What stands for the variable that begins here, and where the text continues."""
        following = text[dollar + 1 : dollar + 2]
        if following == "$" and self.literal:
            return "$", dollar + 2
        if following == "{" and (end := closing(text, dollar + 1)) is not None:
            return self._braced(text[dollar + 2 : end], text[dollar : end + 1]), end + 1
        if name := NAME.match(text, dollar + 1):
            return self._value(name[0]), name.end()
        return "$", dollar + 1

    def _braced(self, inside: str, whole: str) -> str:
        name = NAME.match(inside)
        if not name:
            self.note(f"{whole} is no variable that can be filled in")
            return whole
        operator = re.match(r":?[-?+]|$", inside[name.end() :])
        if operator is None:
            self.note(f"{whole} is kept as it is: it is none of Compose's forms")
            return whole
        return self._chosen(name[0], operator[0], inside[name.end() + operator.end() :])

    def _chosen(self, name: str, operator: str, rest: str) -> str:
        value = self.values.get(name)
        is_there = value is not None and (bool(value) or not operator.startswith(":"))
        match operator[-1:]:
            case "-":
                return str(value) if is_there else self.fill(rest)
            case "+":
                return self.fill(rest) if is_there else ""
            case "?":
                return str(value) if is_there else self._refused(name, rest)
        return self._value(name)

    def _refused(self, name: str, said: str) -> str:
        self.note(f"{name} is not set, and must be{f': {said}' if said else ''}")
        return ""

    def _value(self, name: str) -> str:
        if name not in self.values:
            self.note(f"{name} is not set; it is read as empty")
        return self.values.get(name, "")

    def note(self, sentence: str) -> None:
        """Remember what could not be read."""
        self.noted[self.about, sentence] = None


def closing(text: str, opening: int) -> int | None:
    """The brace that ends what begins here; ``None`` if there is none."""
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == "{":  # also of JSON in a default
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
    return None
