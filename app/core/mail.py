"""Mails: through SMTP where a server is set, else to the log and a folder."""

from __future__ import annotations

import logging
import os
import secrets
import smtplib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from app.core.domain.errors import Unavailable

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 20.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Mail:
    """One message to one person, as plain text."""

    to: str
    subject: str
    text: str


class Mailer:
    """Sends mails. `smtp_url`: `smtp://user:password@host:port`, `smtps://…`, or empty."""

    def __init__(self, smtp_url: str, sender: str, folder: Path) -> None:
        self._server = urlsplit(smtp_url) if smtp_url else None
        self._sender = sender
        self._folder = folder

    def send(self, mail: Mail) -> None:
        """Hand one mail to the server. Raises Unavailable when it does not take it."""
        message = self._message(mail)
        if self._server is None:
            self._keep(mail, message)
            return
        try:
            self._deliver(self._server, message)
        except (smtplib.SMTPException, OSError) as error:
            raise Unavailable(f"The mail server did not take the mail: {error}") from error

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(domain="weft")
        message["Auto-Submitted"] = "auto-generated"
        # Unencoded where that is possible: a link in a kept file can then be copied as it is.
        message.set_content(
            mail.text, cte="7bit" if mail.text.isascii() else "quoted-printable"
        )
        return message

    def _deliver(self, server: SplitResult, message: EmailMessage) -> None:
        host = server.hostname or "localhost"
        # Named here, because smtplib would ask the DNS who we are, for seconds where there is none.
        own_name = parseaddr(self._sender)[1].rpartition("@")[2] or "localhost"
        trusted = ssl.create_default_context()
        if server.scheme == "smtps":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                host, server.port or 465, own_name, timeout=TIMEOUT_SECONDS, context=trusted
            )
        else:
            client = smtplib.SMTP(host, server.port or 587, own_name, timeout=TIMEOUT_SECONDS)
        with client:
            client.ehlo()
            is_private = server.scheme == "smtps" or host in _LOOPBACK
            if server.scheme == "smtp" and client.has_extn("starttls"):
                client.starttls(context=trusted)
                client.ehlo()
                is_private = True
            if server.username:
                if not is_private:
                    raise smtplib.SMTPNotSupportedError("it offers no TLS for the password")
                client.login(unquote(server.username), unquote(server.password or ""))
            client.send_message(message)

    def _keep(self, mail: Mail, message: EmailMessage) -> None:
        """Without a server, whoever runs the hub reads the mail here."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = self._folder / f"{stamp}-{secrets.token_hex(4)}.eml"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(message))
        log.info("no mail server is set; mail to %s kept in %s:\n%s", mail.to, path, mail.text)
