"""Settings: typed, read from the environment once, refused when they make no sense.

Each field's alias is the environment variable; its description stands in docs/settings.md.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

KNOWN_APP_ORIGINS = (
    "tauri://localhost,http://tauri.localhost,https://tauri.localhost,"
    "http://localhost:1420,http://localhost:3000,http://localhost:5173"
)


class BadSettings(Exception):
    """The environment holds a value that Weft can't run with."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _networks(value: object) -> object:
    parts = _split(value)
    if isinstance(parts, tuple):
        return tuple(ip_network(part) if isinstance(part, str) else part for part in parts)
    return parts


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Everything an operator can set."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="forbid")

    # Where things are
    port: int = Field(
        8000, alias="WEFT_PORT", ge=1, le=65535, description="Port of the web server."
    )
    host: str = Field(
        "127.0.0.1", alias="WEFT_HOST", description="Address the web server binds to."
    )
    public_url: str = Field(
        "",
        alias="WEFT_PUBLIC_URL",
        description="URL under which people reach the hub; used in mails, links, the join command and"
        " for Google's way back. Empty: the address of the request, and http://WEFT_HOST:WEFT_PORT"
        " in mails and for Google.",
    )
    data_dir: Path = Field(
        Path("var"),
        alias="WEFT_DATA_DIR",
        description="Folder for the database, files and secrets.",
    )
    database_url: str = Field(
        "",
        alias="DATABASE_URL",
        description="SQLAlchemy URL. Empty: SQLite in the data folder. `postgresql://…` for more than one host.",
    )
    redis_url: str = Field(
        "",
        alias="REDIS_URL",
        description="Redis ≥ 6.2 or Valkey. Empty: `make run` starts an embedded Valkey on a socket in the data folder.",
    )
    storage_url: str = Field(
        "",
        alias="STORAGE_URL",
        description="Where files go: empty for the data folder, or `s3://bucket/prefix`.",
    )

    # Secrets and sign-in
    secret_key: str = Field(
        "",
        alias="SECRET_KEY",
        description="Signs sessions and tokens. Empty: made once and kept in the data folder.",
    )
    admin_email: str = Field(
        "admin@weft.local", alias="WEFT_ADMIN_EMAIL", description="First admin's e-mail."
    )
    admin_password: str = Field(
        "",
        alias="WEFT_ADMIN_PASSWORD",
        description="First admin's password. Empty: made up and printed once.",
    )
    open_signup: bool = Field(
        True, alias="WEFT_OPEN_SIGNUP", description="Whether strangers may register accounts."
    )
    auto_approve_providers: bool = Field(
        False,
        alias="AUTO_APPROVE_PROVIDERS",
        description="Approve GPU providers at their first node.",
    )
    secure_cookies: bool = Field(
        False,
        alias="WEFT_SECURE_COOKIES",
        description="Send the session cookie over HTTPS only. Turn on behind TLS.",
    )
    trusted_proxies: int = Field(
        0,
        alias="WEFT_TRUSTED_PROXIES",
        ge=0,
        le=5,
        description="Reverse proxies in front, for X-Forwarded-*.",
    )
    google_client_id: str = Field(
        "",
        alias="GOOGLE_CLIENT_ID",
        description="Turns Google sign-in on; docs/accounts.md says how to get one.",
    )
    google_certs_url: str = Field(
        "https://www.googleapis.com/oauth2/v1/certs",
        alias="GOOGLE_CERTS_URL",
        description="Key set that Google's ID tokens are checked against.",
    )
    google_authorize_url: str = Field(
        "https://accounts.google.com/o/oauth2/v2/auth",
        alias="GOOGLE_AUTHORIZE_URL",
        description="Where the dashboard's Google button sends people.",
    )
    signin_limit_per_minute: Count = Field(
        10,
        alias="SIGNIN_LIMIT_PER_MINUTE",
        description="Failed sign-ins a minute per account and address.",
    )
    argon2_profile: Literal["default", "cheapest"] = Field(
        "default",
        alias="WEFT_ARGON2_PROFILE",
        description="Cost of password hashes; `cheapest` is for tests.",
    )

    # Mail
    smtp_url: str = Field(
        "",
        alias="SMTP_URL",
        description="`smtp://user:password@host:port` (or `smtps://`). Empty: mails go to the log and `var/mail/`.",
    )
    mail_from: str = Field(
        "Weft <weft@localhost>", alias="MAIL_FROM", description="Sender of mails."
    )

    # Networks
    allowed_node_networks: Networks = Field(
        (),
        alias="ALLOWED_NODE_NETWORKS",
        description="Private networks (CIDR, comma-separated) where engines and files may be reached.",
    )
    fabric_trusted_networks: Networks = Field(
        (),
        alias="FABRIC_TRUSTED_NETWORKS",
        description="Peers taken as an admin on the fabric routes without a credential.",
    )
    cors_origins: Words = Field(
        _split(KNOWN_APP_ORIGINS),
        alias="CORS_ORIGINS",
        validate_default=True,
        description="Browser origins that may call the APIs.",
    )

    # Web
    web_workers: Count = Field(
        1, alias="WEFT_WEB_WORKERS", description="Web server processes; one per core is plenty."
    )
    rq_workers: Count = Field(
        1, alias="WEFT_WORKERS", description="RQ worker processes started by `make run`."
    )
    run_slots: Count = Field(
        512, alias="WEFT_RUN_SLOTS", description="Runs that one worker process serves at once."
    )
    max_json_bytes: Count = Field(
        2_000_000, alias="MAX_JSON_BYTES", description="Largest JSON body, bytes."
    )
    max_upload_bytes: Count = Field(
        10 * 2**30, alias="MAX_UPLOAD_BYTES", description="Largest uploaded file, bytes."
    )
    dataset_max_bytes: Count = Field(
        10 * 2**30, alias="DATASET_MAX_BYTES", description="Largest dataset, bytes."
    )
    dataset_index_passages: Count = Field(
        50_000,
        alias="DATASET_INDEX_PASSAGES",
        description="Passages of up to 700 characters that research can search in one dataset.",
    )
    dataset_index_seconds: Count = Field(
        120,
        alias="DATASET_INDEX_S",
        description="How long one dataset may be read for its search index, which then ends there.",
    )
    stream_flush_ms: float = Field(
        20.0,
        alias="STREAM_FLUSH_MS",
        ge=0,
        le=1000,
        description="With 16 streams live or more, answers that flow are read together this often;"
        " what begins never waits.",
    )

    # Runs
    sync_wait_seconds: Seconds = Field(
        60, alias="SYNC_WAIT_S", description="How long `POST /inference/` waits for an answer."
    )
    first_token_timeout_seconds: Seconds = Field(
        60,
        alias="FIRST_TOKEN_TIMEOUT_S",
        description="An engine silent for so long before its first token has failed.",
    )
    idle_timeout_seconds: Seconds = Field(
        60,
        alias="IDLE_TIMEOUT_S",
        description="An engine silent for so long between tokens has failed.",
    )
    run_timeout_seconds: Seconds = Field(
        900, alias="RUN_TIMEOUT_S", description="A run's deadline, queueing included."
    )
    run_lease_seconds: Seconds = Field(
        15,
        alias="RUN_LEASE_S",
        description="A run whose worker is silent for so long is taken from it.",
    )
    queue_limit: Count = Field(
        1000,
        alias="QUEUE_LIMIT",
        description="Runs waiting for one model; above it callers get 503.",
    )
    max_attempts: Count = Field(
        3, alias="RUN_MAX_ATTEMPTS", description="Nodes tried before the first token."
    )
    all_models_format: Literal["names", "objects"] = Field(
        "names",
        alias="TORBIZ_ALL_MODELS",
        description="Answer of `/llm_models/all-models/`: `names` or `objects`.",
    )

    # Nodes
    heartbeat_seconds: Count = Field(
        30, alias="HEARTBEAT_S", description="How often agents beat."
    )
    offline_after_seconds: Count = Field(
        90,
        alias="OFFLINE_AFTER_S",
        description="A node is offline so long after its last beat.",
    )
    beats_kept_days: Count = Field(
        30, alias="BEATS_KEPT_DAYS", description="Raw heartbeats are kept so long."
    )
    auto_models: bool = Field(
        False,
        alias="AUTO_MODELS",
        description="Give idle nodes the largest catalogue model that fits.",
    )
    relay_host: str = Field(
        "",
        alias="WEFT_RELAY_HOST",
        description="Address of this web host at which workers on other hosts reach the relay, over TCP."
        " Empty: a Unix socket in the data folder.",
    )
    local_node: bool = Field(
        True,
        alias="WEFT_LOCAL_NODE",
        description="Whether `make run` starts a node on this machine.",
    )

    # Research
    search_url: str = Field(
        "", alias="SEARCH_URL", description="SearxNG-compatible search for deep research."
    )
    research_model: str = Field(
        "",
        alias="RESEARCH_MODEL",
        description="Model that writes research. Empty: the online one with the largest context.",
    )
    vision_models: Words = Field(
        (),
        alias="VISION_MODELS",
        description="Models that take images, besides those whose name tells.",
    )
    research_timeout_seconds: Seconds = Field(
        3600, alias="RESEARCH_TIMEOUT_S", description="A research job's deadline."
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_scheme(cls, value: str) -> str:
        scheme = value.split(":", 1)[0]
        if scheme in {"postgres", "postgresql"}:
            return "postgresql+psycopg:" + value.split(":", 1)[1]
        if value and scheme not in {"sqlite", "postgresql+psycopg"}:
            raise ValueError("must be a sqlite:// or postgresql:// URL")
        return value

    @field_validator("public_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @property
    def site_url(self) -> str:
        """Where links lead that must not follow the Host header: a stranger writes that."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Settings of this process; a `.env` file in the working folder fills what is unset.

        Raises BadSettings with one line per wrong variable.
        """
        source = dict(os.environ) if environ is None else dict(environ)
        if environ is None:
            source = {**_read_dotenv(Path(".env")), **source}
        names = {field.alias for field in cls.model_fields.values()}
        given = {name: value for name, value in source.items() if name in names and value != ""}
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise BadSettings("\n".join(lines)) from None
        return settings.filled_in()

    def filled_in(self) -> Self:
        """These settings with the data folder's defaults: database, Redis socket, secret key."""
        data_dir = self.data_dir.resolve()
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.model_copy(
            update={
                "data_dir": data_dir,
                "database_url": self.database_url or f"sqlite:///{data_dir / 'weft.db'}",
                "redis_url": self.redis_url or f"unix://{data_dir / 'valkey.sock'}",
                "secret_key": self.secret_key or _kept_secret(data_dir / "secret_key"),
            }
        )


def setting_names() -> frozenset[str]:
    """The names of all settings in the environment."""
    return frozenset(str(field.alias) for field in Settings.model_fields.values())


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that we start: ours, with these changes."""
    return {**os.environ, **changes}


def _kept_secret(path: Path) -> str:
    """The secret in `path`, made on first use; the first of two processes that race wins."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(48))
    return path.read_text().strip()


def _read_dotenv(path: Path) -> dict[str, str]:
    """`NAME=value` lines of a file; comments and quotes as people write them."""
    if not path.is_file():
        return {}
    found = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found[name.removeprefix("export ").strip()] = value.strip().strip("'\"")
    return found
