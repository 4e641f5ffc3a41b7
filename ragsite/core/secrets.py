"""Secrets of others that have to be used again (credentials of sources, keys of webhooks), stored encrypted."""

import base64
from functools import cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ragsite.core.config import config


class SecretLost(Exception):
    """What was encrypted cannot be read: the installation's secret key has changed since."""


@cache
def _fernet(secret_key: str) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"ragsite stored secrets")
    return Fernet(base64.urlsafe_b64encode(derived.derive(secret_key.encode())))


def encrypt_secret(text: str) -> str:
    """The text, unreadable without the installation's secret key; empty stays empty."""
    return _fernet(config().secret_key).encrypt(text.encode()).decode() if text else ""


def decrypt_secret(token: str) -> str:
    """What ``encrypt_secret`` was given.

    Raises:
        SecretLost: it was encrypted under another key.
    """
    if not token:
        return ""
    try:
        return _fernet(config().secret_key).decrypt(token.encode()).decode()
    except InvalidToken:
        raise SecretLost("A stored secret cannot be read any more: enter it again.") from None
