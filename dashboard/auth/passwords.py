"""Passwords: what one must be, and how its hash is made, written and compared.

scrypt (RFC 7914). The written form is ``scrypt:N:r:p:SALT:KEY``, the last two in base64url without
padding.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from edge_agent.errors import ConfigError

PASSWORD_CHARS_MIN: Final = 8
"""NIST SP 800-63B, 5.1.1.1; guesses are limited as well."""

PASSWORD_CHARS_MAX: Final = 200
"""Longer than any passphrase, and short enough for the bound of the form."""

SCRYPT_N: Final = 2**14
"""With r = 8 it takes 16 MB and 60 ms of a PC's core, about 0.3 s of a Pi's."""

SCRYPT_R: Final = 8
"""The block size that RFC 7914 recommends."""

SCRYPT_P: Final = 1
"""More would cost time and no more memory."""

SCRYPT_N_MAX: Final = 2**16
"""64 MB: what a users file may ask for, so that a typing error can't exhaust a Pi."""

SCRYPT_P_MAX: Final = 4
"""Likewise, in time."""

SALT_BYTES: Final = 16
"""RFC 7914 takes any length; 128 random bits never repeat."""

KEY_BYTES: Final = 32
"""As long as the hash inside scrypt; more adds nothing."""

FINGERPRINT_CHARS: Final = 16
"""64 bits: it only has to differ from that of the user's other passwords."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A password's hash with everything that is needed to compare; its repr shows no part of it."""

    n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """Hash a password under a new salt; takes as long as ``matches``."""
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(
            SCRYPT_N,
            SCRYPT_R,
            SCRYPT_P,
            salt,
            _derive(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P),
        )

    @classmethod
    def decoy(cls, n: int = SCRYPT_N, p: int = SCRYPT_P) -> PasswordHash:
        """A hash of no password, to spend on an unknown user the time of a known one."""
        return cls(n, SCRYPT_R, p, secrets.token_bytes(SALT_BYTES), secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Read the written form. Raises ``ValueError`` that says what is wrong, never the hash."""
        words = text.split(":")
        if len(words) != 6 or words[0] != "scrypt":
            raise ValueError("the hash is not of the form scrypt:N:r:p:SALT:KEY")
        if not all(word.isascii() and word.isdigit() and len(word) < 9 for word in words[1:4]):
            raise ValueError("N, r and p of the hash must be whole numbers")
        n, r, p = (int(word) for word in words[1:4])
        if not SCRYPT_N <= n <= SCRYPT_N_MAX or n & (n - 1):
            raise ValueError(f"N of the hash must be a power of 2, {SCRYPT_N} to {SCRYPT_N_MAX}")
        if r != SCRYPT_R or not 1 <= p <= SCRYPT_P_MAX:
            raise ValueError(f"r of the hash must be {SCRYPT_R}, p must be 1 to {SCRYPT_P_MAX}")
        salt, key = from_base64(words[4]), from_base64(words[5])
        if len(salt) != SALT_BYTES or len(key) != KEY_BYTES:
            raise ValueError("the hash is cut short or changed")
        return cls(n, r, p, salt, key)

    def text(self) -> str:
        """The written form."""
        return f"scrypt:{self.n}:{self.r}:{self.p}:{to_base64(self.salt)}:{to_base64(self.key)}"

    def matches(self, password: str) -> bool:
        """Whether it is this password's hash. Blocks for `SCRYPT_N`'s time: call it in a thread."""
        key = _derive(password, self.salt, self.n, self.r, self.p)
        return hmac.compare_digest(key, self.key)

    @property
    def fingerprint(self) -> str:
        """Changes with each new password, and tells nothing of it; for the session."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:FINGERPRINT_CHARS]


def normalised(text: str) -> str:
    """NFC: keyboards and systems write the same Hangul or accents in different code points."""
    return unicodedata.normalize("NFC", text)


def check_password(password: str) -> str:
    """A new password, normalised. Raises ``ConfigError`` if it is not fit to be one."""
    password = normalised(password)
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise ConfigError(
            f"the password has {len(password)} characters; "
            f"{PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} are allowed"
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in password):
        raise ConfigError("the password has control characters, which no login form can send")
    return password


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        normalised(password).encode("utf-8", "replace"),
        salt=salt,
        n=n,
        r=r,
        p=p,
        # OpenSSL's own limit is 32 MB; this is what the parameters need, and as much again.
        maxmem=2 * 128 * r * (n + p),
        dklen=KEY_BYTES,
    )


def to_base64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64(text: str) -> bytes:
    """The reverse. Raises ``ValueError`` without the text, which may be a secret."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error
