"""One tree of settings: a file, over which goes the environment, over which go flags.

`BACALHAU_P2P_SWARM_PORT=0` in the environment, `swarm_port: 0` in the file, and `--swarm-port 0` are the
same setting. Lists are separated by commas in the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from platformdirs import user_data_path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING

PREFIX = "BACALHAU_P2P_"
FILE_NAME = "config.yaml"
_LISTS = frozenset(
    {
        "peers",
        "announce",
        "engines",
        "allow_local_paths",
        "allow_private_networks",
        "ipfs_gateways",
        "s3_buckets",
        "s3_endpoints",
    }
)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _token(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x20-\x7e]*", secret.get_secret_value().strip()):
        raise ValueError("must be one line of plain characters")
    return SecretStr(secret.get_secret_value().strip())


Token = Annotated[SecretStr, AfterValidator(_token)]
"""Credentials of this node; shown nowhere."""


class Limits(BaseModel):
    """What this node gives to jobs in all, as a job would ask for it; empty takes most of the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str = ""
    memory: str = ""
    disk: str = ""
    gpu: str = ""


class Settings(BaseModel):
    """Everything that can be told to a node."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    data_dir: Path = Field(default_factory=lambda: user_data_path("bacalhau-p2p"))
    power_safe: bool = True
    """Whether what this node promised survives a power cut, too, for which it waits for the disk."""
    network: str = Field(default="main", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    requester: bool = True
    compute: bool = True
    swarm_host: str = "0.0.0.0"  # noqa: S104 - peers are other machines; the API alone stays on loopback
    swarm_port: int = Field(default=1235, ge=0, le=65535)
    announce: tuple[str, ...] = ()
    """Multiaddrs to be told to others instead of those of our interfaces."""
    peers: tuple[str, ...] = ()
    """Multiaddrs of peers to connect to, and to stay connected to."""
    neighbours: int = Field(default=4, ge=0, le=100)
    """Nodes to dial, of those heard of, when no peer is connected any more; 0 leaves it at `peers`."""
    dht: Literal["off", "client", "server"] = "server"
    """Whether to make known who has what and to find it so: `client` answers no questions of others."""
    dht_prefix: str = Field(default="", pattern=r"^(/[A-Za-z0-9._-]{1,64}){0,4}$")
    """Which DHT: empty is that of this network alone, `/ipfs` the public one of IPFS."""
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=1234, ge=0, le=65535)
    api_token: str = ""
    """A secret that every API request must bear; needed when the API is not on loopback."""
    gateway: bool = False
    """Whether anybody may read what this node has under `/ipfs/`, without the token and from any web page."""
    gateway_url: str = ""
    """URL at which others reach that, where it is not the API's own address."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    engines: tuple[str, ...] = ()
    """Engines to offer; empty offers all that work here."""
    allow_local_paths: tuple[str, ...] = ()
    """Folders of this machine that jobs may read (`PATH`) or write (`PATH:rw`); globs allowed."""
    allow_private_networks: tuple[str, ...] = ()
    """Networks (`10.1.0.0/16`) outside of the public internet that URLs in jobs may lead into."""
    input_limit: str = "16gb"
    """The largest input that is fetched over the web."""
    input_cache: str = "10gb"
    """How much of what was fetched so is kept for the next job."""
    kubo_api: str = ""
    """URL of a kubo node's RPC: another source of content, and a second home of published results."""
    kubo_token: Token = SecretStr("")
    ipfs_gateways: tuple[str, ...] = ()
    """URLs of trustless gateways to take content from that no peer has."""
    s3_buckets: tuple[str, ...] = ()
    """Patterns (`results-*`) of the S3 buckets for which this node's credentials are used; reading from
    any other is anonymous."""
    s3_endpoints: tuple[str, ...] = ()
    """Endpoints besides AWS that jobs may name."""
    pinning_endpoint: str = ""
    """Base URL of a service that speaks the IPFS Pinning Service API."""
    pinning_token: Token = SecretStr("")
    lighthouse_token: Token = SecretStr("")
    lighthouse_endpoint: str = "https://upload.lighthouse.storage"
    lighthouse_api: str = "https://api.lighthouse.storage"
    estuary_endpoint: str = ""
    estuary_token: Token = SecretStr("")
    accept_networked: bool = False
    data_locality: Literal["anywhere", "local"] = "anywhere"
    """`local` bids on a job only when all of its inputs are on this node already."""
    reject_stateless: bool = False
    """Refuse jobs without inputs: they could run anywhere."""
    probe_exec: str = ""
    """A shell command that gets each job before this node bids on it; exit status 0 accepts it."""
    probe_http: str = ""
    """A URL to which each job is sent before this node bids on it; status 200 accepts it."""
    probe_timeout: float = Field(default=5.0, gt=0, le=30)
    """Seconds for each probe's answer; none is a refusal."""
    drain: float = Field(default=30.0, ge=0)
    """Seconds that running executions get when the node is told to stop."""
    lost_after_surviving: float = Field(default=LOST_AFTER_SURVIVING, ge=0)
    """Seconds without contact for which a requester waits for a node whose run goes on without it, as a
    container does; 0 waits no longer than for anything else."""
    limits: Limits = Limits()
    min_free_disk: str = "1GB"
    """Free space of the data directory's disk under which the node takes no jobs."""
    content_timeout: float = Field(default=15.0, gt=0)
    """Seconds to search for a CID before saying that nobody has it."""
    content_quota: str = ""
    """Bytes that the block store may use, such as 50GB; empty gives it most of the disk."""

    @field_validator("min_free_disk")
    @classmethod
    def _bytes(cls, value: str) -> str:
        parse_bytes(value)
        return value

    @field_validator("data_locality", "dht", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("probe_http", "gateway_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/\s?#]+\S*", value):
            raise ValueError("must be an http or https URL")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: object) -> object:
        if isinstance(value, str):
            value = [item for item in value.split(",") if item]
        if isinstance(value, list | tuple):
            return dict(_label(item) for item in value)
        return value

    @field_validator("input_limit", "input_cache")
    @classmethod
    def _is_bytes(cls, value: str) -> str:
        parse_bytes(value)
        return value

    @property
    def api_on_loopback(self) -> bool:
        return self.api_host in _LOOPBACK or self.api_host.startswith("127.")


def load_settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a node. `flags` that are None were not given.

    Without `file`, `config.yaml` in the data directory is read if it is there.
    Raises SettingsError naming the setting.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    surroundings = _from_environment(os.environ if environ is None else environ)
    merged = {**surroundings, **given}
    if file is None:
        folder = Path(merged.get("data_dir") or user_data_path("bacalhau-p2p"))
        file = folder / FILE_NAME if (folder / FILE_NAME).is_file() else None
    settings = _checked({**(_from_file(file) if file else {}), **merged})
    if not settings.api_on_loopback and not settings.api_token:
        raise SettingsError(
            f"the API on {settings.api_host} would be open to others: set {PREFIX}API_TOKEN to a secret"
        )
    return settings


def _checked(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            where = ".".join(str(part) for part in fault["loc"])
            known = fault["type"] != "extra_forbidden"
            faults.append(f"{where}: {fault['msg'] if known else 'no such setting'}")
        raise SettingsError("; ".join(faults)) from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = environ.get(PREFIX + name.upper())
        if text is None or name == "limits":
            continue
        values[name] = [item for item in text.split(",") if item] if name in _LISTS else text
    limits = {
        part: environ[f"{PREFIX}LIMIT_{part.upper()}"]
        for part in Limits.model_fields
        if f"{PREFIX}LIMIT_{part.upper()}" in environ
    }
    return {**values, "limits": limits} if limits else values


def _from_file(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(f"{path} must hold a map of settings")
    return {str(name): item for name, item in value.items()}


def _label(item: object) -> tuple[str, str]:
    name, separator, text = str(item).partition("=")
    if not separator or not name:
        raise ValueError(f"{item!r} is not KEY=VALUE")
    return name, text
