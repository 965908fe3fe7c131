"""Makes src/vault/tests/known_answer.json: a KEK record and an envelope, with none of our code.

Run: python3 tests/vault/known_answer.py > src/vault/tests/known_answer.json (needs the PyPI package cryptography, 44 or newer).
"""
import base64
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def text(data):
    return base64.b64encode(data).decode()


def joined(*parts):
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


master, salt, version = bytes(range(32)), bytes(range(100, 132)), 5
root = Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=65536).derive(master)


def subkey(info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info + version.to_bytes(4, "big")).derive(root)


record = {
    "version": version, "derivation": "argon2id-hkdf-sha256", "memory_kib": 65536, "passes": 3, "lanes": 4,
    "salt": text(salt), "check": text(subkey(b"ordergate.vault.check.v1")), "created_at": 0,
}
owner, key_id, secret_version, algorithm = b"alice", b"key_1", (2).to_bytes(8, "big"), b"AES-256-GCM"
data_key, nonce, wrap_nonce = bytes(range(50, 82)), bytes(range(12)), bytes(range(12, 24))
parts = [b"PKABCDEFGHIJ12345678", b"secret", b"passphrase"]
plain = b"\x01" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
envelope = {
    "algorithm": "AES-256-GCM", "kek": version, "wrap_nonce": text(wrap_nonce),
    "wrapped_key": text(AESGCM(subkey(b"ordergate.vault.wrap.v1")).encrypt(
        wrap_nonce, data_key,
        joined(b"ordergate.vault.data-key.v1", owner, key_id, secret_version, version.to_bytes(4, "big"), algorithm))),
    "nonce": text(nonce),
    "ciphertext": text(AESGCM(data_key).encrypt(
        nonce, plain, joined(b"ordergate.vault.secret.v1", owner, key_id, secret_version, algorithm))),
}
print(json.dumps({"record": record, "envelope": envelope}, indent=1))
