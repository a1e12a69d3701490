"""Reads one APK and prints what it says as JSON. Runs as a program of its own.

An APK is somebody else's zip with somebody else's binary XML in it: it is read in a process
with little memory and time, which may be killed without harm. Started by `app.core.apk_file`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import load_der_x509_certificate
from pyaxmlparser import APK

MEMORY_BYTES = 1024 * 2**20
CPU_SECONDS = 60
MAX_ENTRIES = 65_000
# Of the only files in it that are unpacked.
MAX_UNPACKED = {"AndroidManifest.xml": 2 * 2**20, "resources.arsc": 64 * 2**20}
MAX_SIGNATURE_FILE = 2**20
MAX_SIGNING_BLOCK = 16 * 2**20
CHUNK_BYTES = 2**20
UNSIGNED = "It has no v2 or v3 signature over the whole file. Sign it with apksigner."

# Signature algorithm → (hash, padding). What is left out, nobody signs with.
_HASHES: dict[int, type[hashes.HashAlgorithm]] = {
    0x0101: hashes.SHA256, 0x0102: hashes.SHA512, 0x0103: hashes.SHA256,
    0x0104: hashes.SHA512, 0x0201: hashes.SHA256, 0x0202: hashes.SHA512,
}  # fmt: skip


class Refused(Exception):
    """The file is not an APK that may be published, and why."""


def main(path: str) -> None:
    """Print the facts, or why the file is refused."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    logging.disable(logging.CRITICAL)
    try:
        found = inspect(path)
    except Refused as error:
        found = {"error": str(error)}
    except Exception:  # noqa: BLE001 - the parser meets hostile bytes; all it raises means one thing
        found = {"error": "This file can't be read as an APK."}
    sys.stdout.write(json.dumps(found))


def inspect(path: str) -> dict[str, Any]:
    """Package, versions, label and the digest of the certificate that signed it."""
    _check_zip(path)
    apk = APK(path)
    package, code = apk.get_package(), apk.get_androidversion_code()
    if not apk.is_valid_APK() or not package or not str(code or "").isdecimal():
        raise Refused("Its manifest names no package and version code.")
    return {
        "package_name": package,
        "version_code": int(code),
        "version_name": apk.get_androidversion_name() or "",
        "min_sdk": apk.get_min_sdk_version() or "1",
        "signer_sha256": _signer(apk, path),
    }


def _check_zip(path: str) -> None:
    if not zipfile.is_zipfile(path):
        raise Refused("This file is not an APK: it is no zip archive.")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if "AndroidManifest.xml" not in names:
        raise Refused("This zip archive has no AndroidManifest.xml.")
    if len(entries) > MAX_ENTRIES or len(set(names)) != len(names):
        raise Refused("Its list of files is not what an APK has.")
    for entry in entries:
        is_signature = entry.filename.startswith("META-INF/") and entry.filename.endswith(
            (".RSA", ".DSA", ".EC", ".SF", ".MF")
        )
        most = MAX_UNPACKED.get(
            entry.filename, MAX_SIGNATURE_FILE * 16 if is_signature else None
        )
        if most is not None and entry.file_size > most:
            raise Refused(f"Its {entry.filename} is far too large.")


def _signer(apk: Any, path: str) -> str:
    """SHA-256 of the signing certificate, in hex, after its signature over the file was checked."""
    contents = _Contents(path)
    # Given to the library as if it had found them: it would read the whole file into memory,
    # and might find another block than the one that the digest leaves out.
    apk._v2_blocks = contents.signing_blocks()
    apk._is_signed_v2 = apk._APK_SIG_KEY_V2_SIGNATURE in apk._v2_blocks
    apk._is_signed_v3 = apk._APK_SIG_KEY_V3_SIGNATURE in apk._v2_blocks
    if apk._is_signed_v3:
        apk.parse_v3_signing_block()
        signers = apk._v3_signing_data
    elif apk._is_signed_v2:
        apk.parse_v2_signing_block()
        signers = apk._v2_signing_data
    else:
        raise Refused(UNSIGNED)
    if not signers:
        raise Refused("Its signature names nobody.")
    digests = {_check_signer(signer, contents) for signer in signers}
    if len(digests) == 1:
        return digests.pop()
    # Several signers together are one identity: all of them have to sign the next version.
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _check_signer(signer: Any, contents: _Contents) -> str:
    certificate = signer.signed_data.certificates[0]
    key = load_der_x509_certificate(certificate).public_key()
    spelled = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if spelled != signer.public_key:
        raise Refused("Its certificate does not belong to the key that signed it.")
    known = [(number, value) for number, value in signer.signatures if number in _HASHES]
    if not known:
        raise Refused("It is signed in a way that this hub does not know.")
    digests = dict(signer.signed_data.digests)
    for number, value in known:
        algorithm = _HASHES[number]
        if digests.get(number) != contents.digest(algorithm().name):
            raise Refused("The file was changed after it was signed.")
        try:
            _verify(key, number, value, bytes(signer.signed_data._bytes), algorithm())
        except InvalidSignature:
            raise Refused("Its signature is not right.") from None
    return hashlib.sha256(certificate).hexdigest()


def _verify(
    key: Any, number: int, value: bytes, data: bytes, algorithm: hashes.HashAlgorithm
) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(value, data, ec.ECDSA(algorithm))
    elif isinstance(key, rsa.RSAPublicKey) and number in {0x0101, 0x0102}:
        pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        key.verify(value, data, pss, algorithm)
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(value, data, padding.PKCS1v15(), algorithm)
    else:
        raise InvalidSignature


class _Contents:
    """The file without its signing block, as signature scheme v2 hashes it.

    Chunks of 1 MiB of three parts: the entries, the central directory, and the end record in
    which the central directory's place is that of the signing block.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            file.seek(max(0, size - 65_557))
            tail = file.read()
            at = tail.rfind(b"PK\x05\x06")
            self._end_at = size - len(tail) + at
            end = tail[at:]
            self._directory_at = struct.unpack_from("<I", end, 16)[0]
            if len(end) != 22 + struct.unpack_from("<H", end, 20)[0]:
                raise Refused("There is something behind its end.")
            file.seek(max(0, self._directory_at - 24))
            size, magic = struct.unpack("<Q16s", file.read(24))
        if magic != b"APK Sig Block 42" or size > MAX_SIGNING_BLOCK:
            raise Refused(UNSIGNED)
        self._block_at = self._directory_at - size - 8
        if not 0 <= self._block_at < self._directory_at <= self._end_at:
            raise Refused("Its signing block is not where it should be.")
        self._end = end[:16] + struct.pack("<I", self._block_at) + end[20:]
        self._digests: dict[str, bytes] = {}

    def signing_blocks(self) -> dict[int, bytes]:
        """What lies in the signing block, by id. Raises struct.error when it is cut off."""
        with Path(self._path).open("rb") as file:
            file.seek(self._block_at + 8)
            data = file.read(self._directory_at - 24 - self._block_at - 8)
        found: dict[int, bytes] = {}
        at = 0
        while at < len(data):
            size, key = struct.unpack_from("<QI", data, at)
            if size < 4 or key in found:
                raise Refused("Its signing block makes no sense.")
            found[key] = data[at + 12 : at + 8 + size]
            at += 8 + size
        return found

    def digest(self, name: str) -> bytes:
        """The digest that the signature must name."""
        if name not in self._digests:
            self._digests[name] = self._compute(name)
        return self._digests[name]

    def _compute(self, name: str) -> bytes:
        chunks = []
        with Path(self._path).open("rb") as file:
            for start, end in ((0, self._block_at), (self._directory_at, self._end_at)):
                file.seek(start)
                chunks += [
                    _chunk(name, file.read(min(CHUNK_BYTES, end - at)))
                    for at in range(start, end, CHUNK_BYTES)
                ]
        chunks.append(_chunk(name, self._end))
        head = b"\x5a" + struct.pack("<I", len(chunks))
        return hashlib.new(name, head + b"".join(chunks)).digest()


def _chunk(name: str, data: bytes) -> bytes:
    return hashlib.new(name, b"\xa5" + struct.pack("<I", len(data)) + data).digest()


if __name__ == "__main__":
    main(sys.argv[1])
