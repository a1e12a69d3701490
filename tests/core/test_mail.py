"""Mails through a real SMTP server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword

from app.core.domain.errors import Unavailable
from app.core.mail import Mail, Mailer
from tests.fixtures.mail import AnyPort, Mailbox

MAIL = Mail("ann@example.org", "Grüße aus dem Netz", "Ein Link: https://hub.example/ü\n")


def test_a_mail_arrives_as_it_was_written(mailbox: Mailbox, tmp_path: Path) -> None:
    Mailer(mailbox.url, "Weft <weft@hub.example>", tmp_path).send(MAIL)
    [mail] = mailbox.mails
    assert mail["From"] == "Weft <weft@hub.example>"
    assert mail["To"] == MAIL.to
    assert mail["Subject"] == MAIL.subject
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().replace("\r\n", "\n") == MAIL.text
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
class TestSignIn:
    @pytest.fixture
    def url(self) -> Iterator[str]:
        """A server that asks who sends."""

        def check(_server: Any, _session: Any, _envelope: Any, _how: str, sent: Any) -> Any:
            good = LoginPassword(b"weft", b"p@ss/word")
            return AuthResult(success=sent == good, handled=False)

        controller = AnyPort(
            Mailbox(), hostname="127.0.0.1", port=0, server_hostname="mail.example",
            authenticator=check, auth_required=True, auth_require_tls=False,
        )  # fmt: skip
        controller.start()
        yield f"127.0.0.1:{controller.port}"
        controller.stop()

    def test_the_urls_name_and_password_are_used(self, url: str, tmp_path: Path) -> None:
        Mailer(f"smtp://weft:p%40ss%2Fword@{url}", "w@x.org", tmp_path).send(MAIL)

    def test_a_wrong_password_is_an_error(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(Unavailable):
            Mailer(f"smtp://weft:wrong@{url}", "w@x.org", tmp_path).send(MAIL)


def test_a_server_that_is_away_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"smtp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable):
            Mailer(url, "w@x.org", tmp_path).send(MAIL)


def test_a_server_without_tls_gets_nothing_where_tls_is_asked_for(
    mailbox: Mailbox, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable):
        Mailer(mailbox.url.replace("smtp:", "smtps:"), "w@x.org", tmp_path).send(MAIL)
    assert mailbox.mails == []


def test_without_a_server_mails_are_kept_for_the_operator_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    Mailer("", "w@x.org", folder).send(MAIL)
    [kept] = folder.glob("*.eml")
    assert b"ann@example.org" in kept.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("part", ["to", "subject"])
def test_nobody_adds_a_header(tmp_path: Path, part: str) -> None:
    changed = {"to": MAIL.to, "subject": "x", part: "x\nBcc: all@example.org"}
    with pytest.raises(ValueError, match=r"(?i)header|newline|linefeed"):
        Mailer("", "w@x.org", tmp_path).send(Mail(text="", **changed))
