"""The role that agents log in as: its name, its password, its limits. Pure."""

import base64
import hashlib
import hmac

from msgspec import Struct

from mas.store.sql import identifier, literal

CONNECTION_LIMIT = 50
SETTINGS = {
    "search_path": "shared",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}
SUPERUSER_SETTINGS = {"temp_file_limit": "1GB"}
"""Limits that only a superuser may set."""

_ATTRIBUTES = (
    "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS "
    f"CONNECTION LIMIT {CONNECTION_LIMIT}"
)
_ITERATIONS = 4096


class Role(Struct, frozen=True):
    """Follows from the home's secret alone, so that nothing has to be remembered."""

    name: str
    password: str
    verifier: str
    """What PostgreSQL keeps of the password. Safe to show: it does not log in."""

    @classmethod
    def derive(cls, secret: bytes, *, name_is_shared: bool) -> "Role":
        """``name_is_shared``: other homes have roles on the same server."""
        fingerprint = _derive(secret, "name").hex()[:8]
        password = _derive(secret, "password").hex()
        return cls(
            name=f"mas_agent_{fingerprint}" if name_is_shared else "mas_agent",
            password=password,
            verifier=_scram_verifier(password, salt=_derive(secret, "salt")[:16]),
        )

    @property
    def quoted(self) -> str:
        return identifier(self.name)

    def definition(self, verb: str) -> str:
        """``CREATE ROLE …`` or ``ALTER ROLE …``."""
        return (
            f"{verb} ROLE {self.quoted} {_ATTRIBUTES} PASSWORD {literal(self.verifier)}"
        )

    def settings(self, *, superuser: bool) -> str:
        wanted = SETTINGS | (SUPERUSER_SETTINGS if superuser else {})
        return ";".join(
            f"ALTER ROLE {self.quoted} SET {name} = {literal(value)}"
            for name, value in wanted.items()
        )


def _derive(secret: bytes, purpose: str) -> bytes:
    return hmac.digest(secret, f"mas agents' role: {purpose}".encode(), "sha256")


def _scram_verifier(password: str, *, salt: bytes) -> str:
    """SCRAM-SHA-256 as PostgreSQL stores it: the password itself never travels."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (
        base64.b64encode(part).decode() for part in (salt, stored_key, server_key)
    )
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt64}${stored64}:{server64}"
