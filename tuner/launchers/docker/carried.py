"""What a deployment's own container has and each trial's has as well, beyond image, GPUs and mounts."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tuner.schema import Schema

_GIB = 1 << 30


class CarriedOptions(Schema):
    """Options of a container, as a compose service has them; what they say counts more than a trial's hardening."""

    security_opt: tuple[str, ...] = ()
    """Security options of the deployment, as in a compose file; what they say of new privileges counts more than
    ``new_privileges``."""
    user: str | None = None
    """The user that the program runs as, ``UID:GID``; null takes the image's."""
    devices: tuple[str, ...] = ()
    """Devices of the host, ``HOST:CONTAINER:rwm``, besides the GPUs."""
    device_cgroup_rules: tuple[str, ...] = ()
    """Devices that it may use without having been given them: ``c 226:* rwm``."""
    group_add: tuple[str, ...] = ()
    """Further groups of that user, such as those that own the devices."""
    cap_add: tuple[str, ...] = ()
    """Capabilities that the deployment adds; they count more than ``drop_capabilities``."""
    cap_drop: tuple[str, ...] = ()
    """Capabilities that the deployment goes without."""
    privileged: bool = False
    """Whether the container may do everything, as the deployment's may; it overrides all hardening."""
    ulimits: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """Limits of the deployment by name, soft and hard: ``memlock: [-1, -1]``."""
    sysctls: dict[str, str] = Field(default_factory=dict)
    """Settings of the kernel for the container's namespaces: ``net.core.somaxconn: "1024"``."""
    extra_hosts: tuple[str, ...] = ()
    """Names of hosts that the container knows, ``NAME:ADDRESS``."""
    dns: tuple[str, ...] = ()
    """Servers that it asks for names, where these are not the host's."""
    dns_opt: tuple[str, ...] = ()
    """Options of its resolver."""
    dns_search: tuple[str, ...] = ()
    """Domains in which it looks for names."""
    pid: Literal["host"] | None = None
    """``host``: it sees the host's processes; null for its own only."""
    userns: Literal["host"] | None = None
    """``host``: its root is the host's, on an engine that maps users."""
    cgroup: Literal["host", "private"] | None = None
    """Its cgroup namespace; null is the engine's default."""
    cgroup_parent: str | None = None
    """The cgroup that it is counted in."""
    cpus: PositiveFloat | None = None
    """How much of the host's processors it may use, 1.5 for one and a half; null for all."""
    cpuset: str | None = None
    """Which processors: ``0-15,32``."""
    cpu_shares: Annotated[int, Field(ge=2)] | None = None
    """Its weight where processors are short."""
    memory_swap_gib: PositiveFloat | Literal[-1] | None = None
    """``memory_gib`` and swap together; -1 for no limit, null for the engine's default."""
    read_only: bool = False
    """Whether it can write to volumes only."""
    tmpfs: tuple[Annotated[str, Field(pattern="^/")], ...] = ()
    """Folders in memory, ``PATH`` or ``PATH:OPTIONS``."""
    runtime: str | None = None
    """The engine's runtime that runs it; null for the usual one."""
    working_dir: str | None = None
    """Where its program starts; null for the image's own."""
    pids: PositiveInt | None = 16384
    """The most processes and threads that a container may have."""
    memory_gib: PositiveFloat | None = None
    """The most host memory that a container may use."""

    @property
    def engine_options(self) -> Mapping[str, Any]:
        """As Docker's SDK takes them; ``ulimits``, which have a type of its own there, are left out."""
        lists = ("devices", "device_cgroup_rules", "group_add", "cap_add", "dns", "dns_opt", "dns_search")
        return {
            **{name: list(values) for name in lists if (values := getattr(self, name))},
            "privileged": self.privileged,
            "user": self.user,
            "sysctls": dict(self.sysctls) or None,
            "extra_hosts": dict(host.split(":", 1) for host in self.extra_hosts),
            "pid_mode": self.pid,
            "userns_mode": self.userns,
            "cgroupns": self.cgroup,
            "cgroup_parent": self.cgroup_parent,
            "nano_cpus": None if self.cpus is None else round(self.cpus * 1e9),
            "cpuset_cpus": self.cpuset,
            "cpu_shares": self.cpu_shares,
            "mem_limit": _bytes(self.memory_gib),
            "memswap_limit": _bytes(self.memory_swap_gib),
            "read_only": self.read_only,
            "tmpfs": dict(one.partition(":")[::2] for one in self.tmpfs),
            "runtime": self.runtime,
            "working_dir": self.working_dir,
            "pids_limit": self.pids,
        }

    @property
    def compose_options(self) -> Mapping[str, Any]:
        """As a compose service has them; a limit of processes is a trial's own precaution."""
        said = {
            "mem_limit": None if self.memory_gib is None else f"{self.memory_gib:g}gb",
            "memswap_limit": _swap(self.memory_swap_gib),
            "userns_mode": self.userns,
            "ulimits": {name: {"soft": soft, "hard": hard} for name, (soft, hard) in self.ulimits.items()},
            **{name: list(getattr(self, name)) for name in _LISTS},
            **{name: getattr(self, name) for name in _VALUES},
        }
        return {name: value for name, value in said.items() if value}


_LISTS = (
    *("devices", "device_cgroup_rules", "group_add", "cap_add", "cap_drop", "security_opt", "extra_hosts", "tmpfs"),
    *("dns", "dns_opt", "dns_search"),
)
_VALUES = (
    *("user", "privileged", "sysctls", "pid", "cgroup", "cgroup_parent", "cpus", "cpuset", "cpu_shares"),
    *("read_only", "runtime", "working_dir"),
)


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else -1 if gib == -1 else int(gib * _GIB)


def _swap(gib: float | None) -> str | int | None:
    return None if gib is None else -1 if gib == -1 else f"{gib:g}gb"
