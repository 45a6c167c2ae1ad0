"""A database's password: where it may be given, where it is looked up, and how it is kept out of
messages.
"""

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from hawsweep.errors import StudyError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


# The scheme of a URL that names a proxy of a storage.
PROXY = "grpc"
PASSWORD_VARIABLE = "HAWSWEEP_STORAGE_PASSWORD"
KEYRING_SERVICE = "hawsweep"
# Keys of a URL's query that hold no secret; all others may. Drivers have
# dozens, and new ones come.
_OPEN_KEYS = re.compile(
    r"""(?x) application_name | autocommit | cache | charset | check_same_thread | client_encoding
    | collation | connect_timeout | database | dbname | driver | encoding | encrypt | host
    | isolation_level | mode | passfile | port | read_timeout | server | service | ssl
    | ssl_?(ca|cert|key|mode|crl) | sslrootcert | target_session_attrs | timeout
    | trusted_connection | trustservercertificate | uid | unix_socket | uri | user
    | write_timeout"""
)
# The keys and values of an ODBC string; in braces a value may hold a semicolon.
_ODBC = re.compile(r"([^=;]+)=(?:\{([^}]*)\}|([^;]*))")
# Shorter values are numbers and switches: to hide them would hide all digits of a message.
_SHORTEST = 4


def refuse_shown_password(url: str) -> None:
    """Refuse a URL whose password was given on the command line.

    Raises:
        StudyError: There is one in it, or a value of its query that may be one, or it cannot be
            told.
    """
    parsed = parse_storage_url(url)
    if found := _secrets(parsed):
        holds = "holds" if found[:1] == _passwords(parsed)[:1] else "holds what may be"
        raise StudyError(
            f"--storage {holds} a password, and every user of this machine can read it in the list "
            "of processes. Set HAWSWEEP_STORAGE to the URL instead; or leave the password out of "
            f"the URL and set {PASSWORD_VARIABLE}, or store it once: "
            f"keyring set {KEYRING_SERVICE} {_account(parsed)}"
        )


def with_password(url: str) -> str:
    """A storage URL, with the password added if the URL has a user only and a password is found.

    Looked for in the environment, then in the system's keyring where the package ``keyring`` is
    installed, under the service ``hawsweep`` and the name ``user@host/database``.

    Raises:
        StudyError: It is no URL, or the keyring cannot be read.
    """
    parsed = parse_storage_url(url)
    if not parsed.username or _passwords(parsed):
        return url
    password = os.environ.get(PASSWORD_VARIABLE) or _from_keyring(_account(parsed))
    if not password:
        return url  # for instance, the database trusts this user
    return parsed.set(password=password).render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """A storage URL as it may be shown: without the user's password, with *** for others."""
    from sqlalchemy.engine import URL

    p = parse_storage_url(url)
    shown = URL.create(p.drivername, p.username, None, p.host, p.port, p.database, p.query)
    text = shown.render_as_string()
    return without_secrets(text, text)  # of the query: the user's name may be the password too


def without_secrets(text: str, url: str) -> str:
    """A text without the URL's passwords, in all their quotings."""
    for secret in sorted(_secrets(parse_storage_url(url)), key=len, reverse=True):  # or parts stay
        quoted = (quote(secret, safe=safe) for safe in ("", "/", " +"))  # URLs differ in this
        for written in {secret, quote_plus(secret), *quoted}:
            text = text.replace(written, "***")
    return text


def parse_storage_url(url: str) -> "URL":
    """Read an Optuna RDB URL, or grpc://HOST:PORT of a proxy.

    Raises:
        StudyError: It is no URL, or a password's characters end in another part of it. The message
            does not quote it.
    """
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # their texts may hold the password
        parsed = None
    if parsed is not None and parsed.drivername == PROXY:
        if not (parsed.host and parsed.port) or parsed != URL.create(
            PROXY, host=parsed.host, port=parsed.port
        ):
            raise StudyError("the URL of a storage proxy must read grpc://HOST:PORT.")
        return parsed
    misplaced = parsed and parsed.username and "@" in f"{parsed.host}{parsed.database}"
    if parsed is None or misplaced:
        raise StudyError(
            "the database given as storage cannot be opened: its URL must read "
            "dialect+driver://user@host:port/database. In a password write @ as %40, : as %3A and "
            "/ as %2F."
        )
    return parsed


def _account(url: "URL") -> str:
    return f"{url.username}@{url.host or 'localhost'}/{url.database or ''}"


def _passwords(url: "URL") -> list[str]:
    found = [str(url.password)] if url.password else []
    return found + [value for key, value in _query(url) if _is_password(key)]


def _secrets(url: "URL") -> list[str]:
    """Passwords, then all values of the query that are not known to be open."""
    closed = [value for key, value in _query(url) if not _OPEN_KEYS.fullmatch(key.lower())]
    hidden = [value for value in closed if len(value) >= _SHORTEST]
    return list(dict.fromkeys([*_passwords(url), *hidden]))


def _is_password(key: str) -> bool:
    name = key.lower().replace("_", "")
    return name == "pass" or name.endswith(("password", "passwd", "pwd"))


def _query(url: "URL") -> Iterator[tuple[str, str]]:
    """The keys and values of a URL's query, also of an ODBC string in it."""
    for key, values in url.normalized_query.items():
        for value in filter(None, values):
            if key.lower() != "odbc_connect":
                yield key, value
                continue
            for name, braced, bare in _ODBC.findall(value):
                if said := braced or bare.strip():
                    yield name.strip(), said


def _from_keyring(account: str) -> str | None:
    try:
        import keyring  # type: ignore[import-not-found]
        import keyring.errors  # type: ignore[import-not-found]
    except ImportError:
        return None
    try:
        password: str | None = keyring.get_password(KEYRING_SERVICE, account)
    except keyring.errors.NoKeyringError:
        return None
    except keyring.errors.KeyringError as fault:
        raise StudyError(
            f"The keyring cannot be read: {fault}. Unlock it, or set {PASSWORD_VARIABLE}."
        ) from fault
    return password
