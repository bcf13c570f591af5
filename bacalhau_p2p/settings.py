"""The settings of a node, from a file, the environment and flags. Later ones override earlier ones.

`swarm_port: 0` in the file, `BACALHAU_P2P_SWARM_PORT=0` in the environment and `--swarm-port 0` are the same
setting. Lists are separated by commas in the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from platformdirs import user_cache_path, user_data_path
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from bacalhau_p2p.compute.presence import GONE_AFTER
from bacalhau_p2p.compute.shares import DEFAULT_SHARE
from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.model.documents import YamlLoader, as_plain, yaml_fault
from bacalhau_p2p.model.fields import MAX_ENTRIES
from bacalhau_p2p.model.resources import ResourceSpec
from bacalhau_p2p.model.validation import faults_of
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING
from bacalhau_p2p.setting_values import (
    DhtPrefix,
    Domains,
    JobUser,
    LocalPath,
    NetworkName,
    Peer,
    PeerIDs,
    Registry,
    Seconds,
    Size,
    Token,
    Url,
    as_meant,
)

PREFIX = "BACALHAU_P2P_"
FILE_NAME = "config.yaml"
_OTHER_VARIABLES = re.compile(
    PREFIX + r"(DEVSTACK|REQUIRE_DOCKER|REQUIRE_KUBO|CHAOS|SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_\w+)?)"
)
"""Those of a devstack, of our tests, and what Kubernetes tells each container of a service `bacalhau-p2p`."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


MAX_LABELS = 4096
"""Bytes of all labels of a node. They are half of what a node may announce about itself."""
MAX_LABEL_NAME = 256
_NETWORKS_OF = {"true": "full", "yes": "full", "1": "full", "false": "none", "no": "none", "0": "none"}
"""What a switch says about networked jobs, as in Bacalhau."""
STARS = "********"
"""What is shown of a secret."""
FLAG = "flag"
"""The origin of a setting that a flag gives."""


class Limits(ResourceSpec):
    """Amounts of resources; empty is no limit of one's own."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _accept_numbers(cls, values: object) -> object:
        return {k: as_meant(v) for k, v in values.items()} if isinstance(values, Mapping) else values


class Settings(BaseModel):
    """All settings of a node."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    data_dir: Path = Field(default_factory=lambda: _default_data_dir())
    power_safe: bool = True
    """Wait for the disk before promising anything, so that a power failure does not undo it."""
    network: NetworkName = "main"
    requester: bool = True
    compute: bool = True
    swarm_host: str = "0.0.0.0"  # noqa: S104 - peers are other computers; only the API stays on loopback
    swarm_port: int = Field(default=1235, ge=0, le=65535)
    announce: tuple[str, ...] = ()
    """Multiaddrs to announce instead of those of the network interfaces."""
    peers: tuple[Peer, ...] = ()
    """Multiaddrs of peers to connect to and stay connected to."""
    allowed_peers: PeerIDs = ()
    """The only peers that may connect. Empty: all."""
    denied_peers: PeerIDs = ()
    """Peers that may not connect, and whose broadcasts are ignored."""
    neighbours: int = Field(default=6, ge=0, le=32)
    """How many connections to have: with fewer, known nodes are dialled. 0 dials only `peers`."""
    mdns: bool = True
    """Find nodes on the local network, and let them find this one, where it listens on a private address."""
    dht: Literal["off", "client", "server"] = "server"
    """Use a DHT to announce and find content. `client` does not answer requests of other nodes."""
    dht_prefix: DhtPrefix = ""
    """Which DHT: empty for the one of this network, `/ipfs` for the public one of IPFS."""
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=1234, ge=0, le=65535)
    api_token: str = ""
    """A secret that every API request must contain. Required if the API is not on loopback."""
    gateway: bool = False
    """Serve this node's content under `/ipfs/` to everybody, without the token and to any web page."""
    gateway_url: Url = ""
    """URL of the gateway for other nodes, if it is not the address of the API."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    engines: tuple[str, ...] = ()
    """Engines to offer. Empty offers all that work on this computer."""
    allow_local_paths: tuple[LocalPath, ...] = ()
    """Folders of this computer that jobs may read (`PATH`) or write (`PATH:rw`). May contain globs."""
    allow_private_networks: tuple[str, ...] = ()
    """Private networks (`10.1.0.0/16`) that URLs in jobs may point to."""
    input_limit: Size = "16gb"
    """The largest input that is downloaded from the web."""
    input_cache: Size = "10gb"
    """How much downloaded input is kept for later jobs."""
    image_registries: tuple[Registry, ...] = (
        "docker.io",
        "ghcr.io",
        "quay.io",
    )
    """Registries (`HOST` or `HOST:PORT`) whose images jobs may use."""
    job_user: JobUser = "image"
    """The user of Docker jobs: `image` (the image's own unless that is root), `nobody` or `UID[:GID]`."""
    keep_images: Seconds = Field(default=7 * 86400.0, ge=0)
    """Seconds that an image pulled for a job stays in the Docker engine after its last use."""
    kubo_api: str = ""
    """URL of the RPC of a kubo node: a source of content and a copy of published results."""
    kubo_token: Token = SecretStr("")
    ipfs_gateways: tuple[str, ...] = ()
    """URLs of trustless gateways, for content that no peer has."""
    s3_buckets: tuple[str, ...] = ()
    """Patterns (`results-*`) of the S3 buckets that are accessed with this node's credentials. All others are
    read anonymously."""
    s3_endpoints: tuple[str, ...] = ()
    """S3 endpoints other than AWS that jobs may use."""
    pinning_endpoint: str = ""
    """Base URL of a service with the IPFS Pinning Service API."""
    pinning_token: Token = SecretStr("")
    lighthouse_token: Token = SecretStr("")
    lighthouse_endpoint: str = "https://upload.lighthouse.storage"
    lighthouse_api: str = "https://api.lighthouse.storage"
    estuary_endpoint: str = ""
    estuary_token: Token = SecretStr("")
    accept_networked: Literal["none", "http", "full"] = "none"
    """Accept jobs that need a network: `http` those that name the domains they ask, `full` all."""
    network_domains: Domains = ()
    """The only domains that jobs with the network `http` may name. Empty: all."""
    max_execution_time: Seconds = Field(default=0.0, ge=0)
    """The longest execution timeout, in seconds, of jobs that this node runs. 0: any."""
    allowed_requesters: PeerIDs = ()
    """The only requesters, beside this node, whose jobs this node runs. Empty: all."""
    denied_requesters: PeerIDs = ()
    """Requesters whose jobs this node does not run."""
    max_requester_share: float = Field(default=DEFAULT_SHARE, gt=0, le=1)
    """The share of this node that one requester may hold while others want some of it."""
    max_requester_jobs: int = Field(default=0, ge=0)
    """Jobs that this node runs at a time for one requester. 0: any number."""
    requester_gone_timeout: Seconds = Field(default=GONE_AFTER, ge=0)
    """Seconds of silence of a requester after which this node stops what it runs for it. 0: never."""
    keep_jobs: Seconds = Field(default=30 * 86400.0, ge=0)
    """Seconds that a requester keeps jobs that have ended. 0: for ever."""
    max_jobs: int = Field(default=100_000, ge=0)
    """The most jobs that have ended and that a requester keeps, and the most executions that a compute node
    keeps, the latest ones. 0: any number."""
    data_locality: Literal["anywhere", "local"] = "anywhere"
    """`local`: bid on a job only if all of its inputs are on this node."""
    reject_stateless: bool = False
    """Reject jobs without inputs, because they can run anywhere."""
    probe_exec: str = ""
    """A shell command that decides about each job before this node bids on it. Exit status 0 accepts it."""
    probe_http: Url = ""
    """A URL that decides about each job before this node bids on it. HTTP status 200 accepts it."""
    probe_timeout: Seconds = Field(default=5.0, gt=0, le=30)
    """Seconds for a probe to answer. If it does not, the job is rejected."""
    drain: Seconds = Field(default=30.0, ge=0)
    """Seconds for running executions to finish when the node is stopped."""
    lost_after_surviving: Seconds = Field(default=LOST_AFTER_SURVIVING, ge=0)
    """Seconds that a requester waits for a silent node whose containers keep running without it. 0 waits as
    long as for any other execution."""
    limits: Limits = Limits()
    """Resources for all jobs together. Empty means most of the computer, and every GPU that is found."""
    job_limits: Limits = Limits()
    """Resources of one job at most. Empty means as much as there is for all."""
    compiled_modules: str = ""
    """A folder for compiled WebAssembly modules. Nodes of one user may name the same one, so that a module is
    compiled once for all of them. Empty: a folder in the data directory."""
    min_free_disk: Size = "1GB"
    """The node takes no jobs while less than this is free on the disk of the data directory."""
    content_timeout: Seconds = Field(default=15.0, gt=0)
    """Seconds to search for a CID."""
    content_quota: Size = ""
    """The size limit of the block store. Empty means most of the disk."""

    @model_validator(mode="before")
    @classmethod
    def _accept_plain_values(cls, values: object) -> object:
        """A number where text is expected is its text, and text where a list is expected its items."""
        if not isinstance(values, Mapping):
            return values
        return {name: _in_form(name, value) for name, value in values.items()}

    @field_validator("input_limit", "input_cache", "min_free_disk")
    @classmethod
    def _is_given(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty")
        return value

    @field_validator("accept_networked", mode="before")
    @classmethod
    def _yes_is_any_network(cls, value: object) -> object:
        return _NETWORKS_OF.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @field_validator("data_locality", "dht", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _parse_labels(cls, value: object) -> object:
        if isinstance(value, str):
            value = [item for item in value.split(",") if item]
        if isinstance(value, list | tuple):
            return dict(_label(item) for item in value)
        if isinstance(value, Mapping):
            return {str(as_meant(name)): as_meant(text) for name, text in value.items()}
        return value

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: Mapping[str, str]) -> Mapping[str, str]:
        if len(labels) > MAX_ENTRIES or any(len(name) > MAX_LABEL_NAME for name in labels):
            raise ValueError(f"at most {MAX_ENTRIES} labels, names of at most {MAX_LABEL_NAME} characters")
        if sum(len(name.encode()) + len(value.encode()) for name, value in labels.items()) > MAX_LABELS:
            raise ValueError(f"at most {MAX_LABELS} bytes for all labels, because other nodes keep them")
        return labels

    def listed(self) -> list[tuple[str, object, str]]:
        """Each setting with its value in JSON, and where that comes from: a flag, a variable, a file, the
        program that made these settings, or `default`. Secrets are shown as stars."""
        shown = self.model_dump(mode="json")
        limits = [(f"{model}.{name}", value) for model in _LIMITS for name, value in shown.pop(model).items()]
        found = []
        for name, value in [*shown.items(), *limits]:
            origin = self._origins.get(name) or ("default" if self._is_default(name) else "program")
            found.append((name, STARS if name in _SECRETS and value else value, origin))
        return found

    def _is_default(self, name: str) -> bool:
        model, _, field = name.rpartition(".")
        holder: BaseModel = getattr(self, model) if model else self
        default = type(holder).model_fields[field].get_default(call_default_factory=True)
        return bool(getattr(holder, field) == default)

    @property
    def api_on_loopback(self) -> bool:
        return self.api_host in _LOOPBACK or self.api_host.startswith("127.")


_LIMITS = {"limits": "LIMIT_", "job_limits": "JOB_LIMIT_"}
"""The settings that are limits of resources, and how their variables begin."""
_LISTS = frozenset(
    name for name, field in Settings.model_fields.items() if get_origin(field.annotation) is tuple
)
_TEXTS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if field.annotation in (str, SecretStr, Path) or get_origin(field.annotation) is Literal
)


_SECRETS = frozenset(name for name in Settings.model_fields if name.endswith("_token"))


def _in_form(name: str, value: object) -> object:
    if name in _TEXTS:
        return as_meant(value)
    if name in _LISTS and isinstance(value, str):
        return _items(value)
    if name in _LISTS and isinstance(value, list | tuple):
        return [as_meant(item) for item in value]
    return as_plain(value) if isinstance(value, int | float) else value


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def load_settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Load the settings of a node. Flags that are None are ignored.

    Without `file`, reads `config.yaml` in the data directory if it exists.
    Raises SettingsError, which names the setting.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    from_environment = _from_environment(os.environ if environ is None else environ)
    overrides = _merged(from_environment, given)
    file = file or _file_in(overrides)
    in_file = _from_file(file) if file else {}
    origins = _origins(file, in_file, from_environment, given)
    settings = _validated(_merged(in_file, overrides), origins)
    settings._origins = origins
    if not settings.api_on_loopback and not settings.api_token:
        raise SettingsError(
            f"api_host: {settings.api_host} makes the API reachable from other computers; "
            f"set {PREFIX}API_TOKEN to a secret"
        )
    _check_peers_may_connect(settings)
    return settings


def _check_peers_may_connect(settings: Settings) -> None:
    """Raises SettingsError for a peer to stay connected to that may not connect."""
    for address in settings.peers:
        peer = address.rpartition("/p2p/")[2]
        if peer in settings.denied_peers:
            raise SettingsError(
                f"peers: {peer} is among denied_peers, so it cannot connect; remove it from one"
            )
        if settings.allowed_peers and peer not in settings.allowed_peers:
            raise SettingsError(
                f"peers: {peer} is not among allowed_peers, so it cannot connect; add it there"
            )


def _origins(
    file: Path | None,
    in_file: Mapping[str, Any],
    from_environment: Mapping[str, Any],
    flags: Mapping[str, Any],
) -> dict[str, str]:
    """Where each setting that is given comes from, the limits one by one."""
    origins = {name: str(file) for name in _flat(in_file)}
    for name in _flat(from_environment):
        origins[name] = PREFIX + name.replace("limits.", "limit_").upper()
    return {**origins, **dict.fromkeys(_flat(flags), FLAG)}


def _flat(values: Mapping[str, Any]) -> list[str]:
    names = [name for name in values if name not in _LIMITS]
    for model in _LIMITS:
        limits = values.get(model)
        names += [f"{model}.{name}" for name in limits] if isinstance(limits, Mapping) else []
    return names


def _default_data_dir() -> Path:
    """That of the user. Raises SettingsError for one who has no home, as users of containers often are."""
    found = user_data_path("bacalhau-p2p")
    if not found.is_absolute():
        raise SettingsError("this user has no home: set HOME, or name a folder with --data-dir")
    return found


def user_cache_dir() -> Path:
    """Where this program may keep what can be made again. Relative for a user without a home."""
    return user_cache_path("bacalhau-p2p")


def _file_in(overrides: Mapping[str, Any]) -> Path | None:
    """`config.yaml` in the data directory, if it exists."""
    path = Path(overrides.get("data_dir") or _default_data_dir()) / FILE_NAME
    return path if path.is_file() else None


def _merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides before the values, limit by limit."""
    merged = {**values, **overrides}
    for model in _LIMITS:
        below, above = values.get(model), overrides.get(model)
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            merged[model] = {**below, **above}
    return merged


def _validated(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = faults_of(error, secrets=_SECRETS)
        raise SettingsError(
            "; ".join(_worded(str(each)) + _where(each.path, origins) for each in faults)
        ) from None


def _where(path: str, origins: Mapping[str, str]) -> str:
    """The file or variable that a wrong setting is in; nothing for a flag, which the user sees."""
    origin = origins.get(path.partition("[")[0], origins.get(re.split(r"[.[]", path)[0], FLAG))
    return "" if origin == FLAG else f" (in {origin})"


def _worded(fault: str) -> str:
    path, unknown, _ = fault.partition(": unknown key")
    if not unknown:
        return fault
    parent, _, name = path.rpartition(".")
    model = Limits if parent in _LIMITS else Settings
    return f"{path}: unknown setting{_suggestion(name, model.model_fields)}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean swarm_port?)` for the most similar of the known names, or nothing."""
    spelled = re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", name).lower()
    close = get_close_matches(spelled, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = environ.get(PREFIX + name.upper())
        if text is None or name in _LIMITS:
            continue
        values[name] = text
    for model, start in _LIMITS.items():
        limits = {
            name: environ[f"{PREFIX}{start}{name.upper()}"]
            for name in Limits.model_fields
            if f"{PREFIX}{start}{name.upper()}" in environ
        }
        values |= {model: limits} if limits else {}
    _check_spelling(environ)
    return values


def _check_spelling(environ: Mapping[str, str]) -> None:
    """Raises SettingsError for a variable with our prefix that is no setting."""
    bare = [name.upper() for name in Settings.model_fields if name not in _LIMITS]
    bare += [f"{start}{name.upper()}" for start in _LIMITS.values() for name in Limits.model_fields]
    for name in environ:
        rest = name.removeprefix(PREFIX)
        if rest != name and rest not in bare and not _OTHER_VARIABLES.fullmatch(name):
            close = get_close_matches(rest, bare, n=1)
            meant = f"did you mean {PREFIX}{close[0]}?" if close else "`config list` shows all settings"
            raise SettingsError(f"{name}: unknown setting ({meant})")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text(), Loader=YamlLoader)  # noqa: S506  # derives from a safe loader
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} is not YAML: {yaml_fault(error)}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(f"{path} must contain a map of settings")
    return {str(name): item for name, item in value.items()}


def _label(item: object) -> tuple[str, str]:
    name, separator, text = str(item).partition("=")
    if not separator or not name:
        raise ValueError(f"{item!r} is not KEY=VALUE")
    return name, text
