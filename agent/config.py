"""The agent's settings: command line first, then `WEFT_AGENT_*` in the environment."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ENGINE_KINDS = ("tgi", "vllm", "sglang", "llamacpp", "ollama", "openai")
# The longest name of a node that the hub takes.
NAME_LENGTH = 64
DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_TGI_IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.7"

# What an engine needs of our environment. The rest, our own secrets among it, stays here.
_ENGINE_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR",
)  # fmt: skip


class SettingsUnusable(Exception):
    """The settings make no sense; the message says which and what would."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An engine that runs already and that the agent only looks after."""

    url: str
    model_name: str
    served_name: str | None = None
    engine: str | None = None
    api_key: str | None = None
    public_url: str | None = None


@dataclass(frozen=True, slots=True)
class BuiltInOptions:
    """How the built-in llama.cpp engine runs."""

    model_file: Path | None = None
    threads: int | None = None
    slots: int = 4
    context_tokens: int = 2048
    port: int = 0
    gpu_layers: int | None = None


@dataclass(frozen=True, slots=True)
class TgiOptions:
    """How TGI is started by docker."""

    image: str = DEFAULT_TGI_IMAGE
    volume: str = "weft-tgi-models"
    gpus: str | None = "all"
    shm_size: str = "1g"
    port: int = 0
    hf_token: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the agent was told at its start."""

    hub: str
    token: str | None
    name: str
    state_dir: Path
    mode: str
    engine: str | None
    model_name: str | None
    attachments: tuple[Attachment, ...] = ()
    built_in: BuiltInOptions = BuiltInOptions()
    tgi: TgiOptions = TgiOptions()
    public_url: str | None = None
    concurrency: int | None = None
    ca_file: str | None = None
    verbose: bool = False
    once_check: bool = False

    @property
    def is_direct(self) -> bool:
        """Whether the hub reaches the engines' URLs itself, without the relay."""
        return self.mode == "direct"


def engine_environment() -> dict[str, str]:
    """The environment that a started engine gets: the bare needs, none of our secrets."""
    return {name: os.environ[name] for name in _ENGINE_ENVIRONMENT if name in os.environ}


def load_settings(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings. Raises SettingsUnusable; `--help` and bad options exit as usual."""
    environment = os.environ if environment is None else environment
    options = _parser(environment).parse_args(arguments)
    _fill_lists(options, environment)
    hub = _hub_url(options.hub, needed=not options.once_check)
    if options.no_engine and (options.endpoint or options.engine):
        raise SettingsUnusable("--no-engine can't go with --endpoint or --engine.")
    attachments = _attachments(options)
    engine = None if options.no_engine or attachments else _engine(options)
    public_urls = _listed(options.endpoint_public)
    direct = options.direct or bool(public_urls)
    return Settings(
        hub=hub,
        token=options.token or _token_from(options.token_file),
        name=(options.name or socket.gethostname() or "node")[:NAME_LENGTH],
        state_dir=_state_dir(options.state_dir, hub),
        mode=options.mode or ("direct" if direct else "relay"),
        engine=engine,
        model_name=_one_model(options) if engine else None,
        attachments=attachments,
        built_in=BuiltInOptions(
            model_file=Path(options.model_file).expanduser() if options.model_file else None,
            threads=options.threads,
            slots=options.slots,
            context_tokens=options.context,
            port=options.engine_port,
            gpu_layers=options.gpu_layers,
        ),
        tgi=TgiOptions(
            image=options.tgi_image,
            volume=options.volume,
            gpus=None if options.gpus == "none" else options.gpus,
            shm_size=options.shm_size,
            port=options.engine_port,
            hf_token=environment.get("WEFT_AGENT_HF_TOKEN") or environment.get("HF_TOKEN"),
        ),
        public_url=public_urls[0] if public_urls and not attachments else None,
        concurrency=options.concurrency,
        ca_file=options.ca_file,
        verbose=options.verbose,
        once_check=options.once_check,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    def given(name: str, fallback: str | None = None) -> str | None:
        return environment.get(f"WEFT_AGENT_{name}") or fallback

    parser = argparse.ArgumentParser(
        prog="python -m agent",
        description="Join this machine to a Weft hub: report its devices, serve its models.",
        epilog="Every option can also be given as WEFT_AGENT_<NAME> in the environment.",
    )
    add = parser.add_argument
    add("--hub", default=given("HUB"), metavar="URL", help="the hub, https://…")
    add("--token", default=given("TOKEN"), help="enrolment token, needed the first time only")
    add("--token-file", default=given("TOKEN_FILE"), help="a file that holds that token")
    add("--name", default=given("NAME"), help="the node's name (default: the host's)")
    add("--state-dir", default=given("STATE_DIR"), help="default ~/.weft-agent/<hub>")
    add("--ca-file", default=given("CA_FILE"), help="trust this CA for the hub's https")
    add(
        "--mode",
        choices=("relay", "direct"),
        default=given("MODE"),
        help="how the hub reaches the engine",
    )
    add(
        "--direct",
        action="store_true",
        default=_truth(given("DIRECT")),
        help="same as --mode direct",
    )
    add("--endpoint-public", action="append", metavar="URL",
        help="the engine's URL as the hub reaches it (direct mode)")  # fmt: skip
    add("--endpoint", action="append", metavar="URL",
        help="attach an engine that runs already; may be repeated")  # fmt: skip
    add(
        "--model",
        action="append",
        help="the model's name on the network",
    )
    add(
        "--served-name",
        action="append",
        help="the engine's own name for it",
    )
    add("--engine", action="append", choices=ENGINE_KINDS,
        help="kind of engine; without --endpoint, tgi or llamacpp is started")  # fmt: skip
    add(
        "--api-key",
        action="append",
        help="the attached engine's API key",
    )
    add(
        "--no-engine",
        action="store_true",
        default=_truth(given("NO_ENGINE")),
        help="only report metrics",
    )
    add(
        "--concurrency",
        type=int,
        default=_number(given("CONCURRENCY")),
        help="requests at once",
    )
    add(
        "--engine-port",
        type=int,
        default=_number(given("ENGINE_PORT")) or 0,
        help="default: any free one",
    )
    add(
        "--model-file",
        default=given("MODEL_FILE"),
        metavar="GGUF",
        help="built-in engine: the model's file",
    )
    add(
        "--threads",
        type=int,
        default=_number(given("THREADS")),
        help="built-in engine: CPU threads",
    )
    add(
        "--slots",
        type=int,
        default=_number(given("SLOTS")) or 4,
        help="built-in engine: requests at once",
    )
    add(
        "--context",
        type=int,
        default=_number(given("CONTEXT")) or 2048,
        help="built-in engine: tokens per request",
    )
    add(
        "--gpu-layers",
        type=int,
        default=_number(given("GPU_LAYERS")),
        help="built-in engine: layers on the GPU",
    )
    add(
        "--tgi-image", default=given("TGI_IMAGE", DEFAULT_TGI_IMAGE), help="docker image of TGI"
    )
    add(
        "--volume",
        default=given("VOLUME", "weft-tgi-models"),
        help="TGI: folder or volume for the weights",
    )
    add("--gpus", default=given("GPUS", "all"), help="TGI: docker's --gpus, or 'none'")
    add("--shm-size", default=given("SHM_SIZE", "1g"), help="TGI: shared memory")
    add(
        "--verbose",
        action="store_true",
        default=_truth(given("VERBOSE")),
        help="say more in the log",
    )
    add(
        "--once-check",
        action="store_true",
        help="print what this machine has, as JSON, and exit",
    )
    return parser


def _fill_lists(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Take from the environment, comma-separated, what may be repeated and wasn't given."""
    for name in ("endpoint", "endpoint_public", "model", "served_name", "engine", "api_key"):
        if not getattr(options, name):
            parts = environment.get(f"WEFT_AGENT_{name.upper()}", "").split(",")
            setattr(options, name, [part.strip() for part in parts if part.strip()])
    unknown = set(options.engine) - set(ENGINE_KINDS)
    if unknown:
        raise SettingsUnusable(
            f"Unknown engine {sorted(unknown)[0]!r}; one of {', '.join(ENGINE_KINDS)}."
        )


def _attachments(options: argparse.Namespace) -> tuple[Attachment, ...]:
    endpoints = _listed(options.endpoint)
    if not endpoints:
        return ()
    models = _listed(options.model)
    if len(models) != len(endpoints):
        raise SettingsUnusable("Give one --model for each --endpoint, in the same order.")
    count = len(endpoints)
    served = _spread("--served-name", options.served_name, count, share_one=False)
    engines = _spread("--engine", options.engine, count)
    keys = _spread("--api-key", options.api_key, count)
    publics = _spread("--endpoint-public", options.endpoint_public, count, share_one=False)
    if len(set(models)) != count:
        raise SettingsUnusable("Two --model have the same name; one node serves a name once.")
    return tuple(
        Attachment(
            url=_engine_url(endpoints[index]),
            model_name=models[index],
            served_name=served[index],
            engine=engines[index],
            api_key=keys[index],
            public_url=publics[index],
        )
        for index in range(count)
    )


def _engine(options: argparse.Namespace) -> str:
    kinds = _listed(options.engine) or ["llamacpp"]
    if len(kinds) > 1 or kinds[0] not in {"tgi", "llamacpp"}:
        raise SettingsUnusable(
            f"The agent starts tgi or llamacpp itself. To attach {kinds[0]}, start it and give "
            "its address with --endpoint URL --model NAME."
        )
    if kinds[0] == "tgi" and not _listed(options.model):
        raise SettingsUnusable("--engine tgi needs --model with a Hugging Face model id.")
    return kinds[0]


def _one_model(options: argparse.Namespace) -> str:
    models = _listed(options.model)
    if len(models) > 1:
        raise SettingsUnusable("Only one --model can go without --endpoint.")
    if models:
        return models[0]
    return Path(options.model_file).stem if options.model_file else DEFAULT_MODEL


def _spread(
    option: str, values: Sequence[str], count: int, *, share_one: bool = True
) -> list[str | None]:
    """One value for each endpoint: as many as there are, or one for all, or none."""
    given = _listed(values)
    if not given:
        return [None] * count
    if len(given) == count:
        return list(given)
    if len(given) == 1 and share_one:
        return [given[0]] * count
    raise SettingsUnusable(f"Give {option} once for each --endpoint, in the same order.")


def _listed(values: Sequence[str] | None) -> list[str]:
    return [value for value in values or () if value]


def _hub_url(value: str | None, *, needed: bool) -> str:
    if not value:
        if needed:
            raise SettingsUnusable("Say where the hub is: --hub https://…")
        return ""
    url = urlsplit(value.strip())
    if url.scheme not in {"http", "https"} or not url.hostname or url.username:
        raise SettingsUnusable(
            f"--hub must be an http(s) URL without a user name, not {value!r}."
        )
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"


def _engine_url(value: str) -> str:
    """The engine's base URL, without a trailing `/v1`, which callers like to give."""
    url = urlsplit(value.strip())
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise SettingsUnusable(f"--endpoint must be an http(s) URL, not {value!r}.")
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/').removesuffix('/v1')}"


def _state_dir(given: str | None, hub: str) -> Path:
    if given:
        return Path(given).expanduser()
    slug = re.sub(r"[^a-z0-9.-]+", "_", hub.split("://")[-1].lower()) or "none"
    return Path("~/.weft-agent").expanduser() / slug


def _token_from(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_text().strip() or None
    except OSError as error:
        raise SettingsUnusable(f"Can't read --token-file: {error}") from error


def _number(value: str | None) -> int | None:
    if not value:
        return None
    try:
        return int(value)
    except ValueError as error:
        raise SettingsUnusable(f"{value!r} isn't a whole number.") from error


def _truth(value: str | None) -> bool:
    return (value or "").strip().lower() in {"1", "true", "yes", "on"}
