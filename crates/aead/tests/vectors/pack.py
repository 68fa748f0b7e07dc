#!/usr/bin/env python3
"""Packs the NIST CAVP vectors that tests/vectors.rs reads.

    pip download cryptography_vectors==48.0.0 --no-deps
    python3 pack.py cryptography_vectors-48.0.0-py3-none-any.whl

Kept of the GCM files (gcmtestvectors.zip, 2011) are all cases with an IV of 96 bits and a tag of
128 bits, encryption and decryption, and of the decryption files those with a tag of 96 or 64 bits
too: what ESP has. Cases without plaintext are GMAC. Kept of the CBC files (KAT_AES.zip and
aesmmt.zip) is everything.

A record is, for each of its fields, a length of two octets, most significant first, and the field.
gcm.bin:  key, iv, aad, plaintext, ciphertext, tag; of a case that must fail the plaintext is absent,
          and its length ffff.
cbc.bin:  key, iv, plaintext, ciphertext.
"""

import re
import sys
import zipfile

AES = "cryptography_vectors/ciphers/AES/"


def cases(text):
    """Sections' headers and the fields of each case, in order."""
    header, case = {}, {}
    for line in text.splitlines() + [""]:
        line = line.strip()
        if match := re.fullmatch(r"\[(\w+)(?: = (\d+))?\]", line):
            header[match[1]] = int(match[2]) if match[2] else None
        elif " = " in line or line.endswith(" ="):
            name, _, value = line.partition(" =")
            case[name] = bytes.fromhex(value.strip()) if name.lower() != "count" else None
        elif line == "FAIL":
            case["FAIL"] = True
        elif not line and case:
            yield header, case
            case = {}


def record(*fields):
    octets = bytearray()
    for field in fields:
        octets += b"\xff\xff" if field is None else len(field).to_bytes(2, "big") + field
    return octets


def main(wheel):
    files = zipfile.ZipFile(wheel)
    read = lambda name: files.read(AES + name).decode()
    gcm, cbc = bytearray(), bytearray()
    for size in (128, 192, 256):
        for kind, tags in (("EncryptExtIV", (128,)), ("Decrypt", (128, 96, 64))):
            for header, case in cases(read(f"GCM/gcm{kind}{size}.rsp")):
                if header["IVlen"] == 96 and header["Taglen"] in tags:
                    text = None if case.get("FAIL") else case["PT"]
                    gcm += record(*(case[f] for f in ("Key", "IV", "AAD")), text, case["CT"], case["Tag"])
        for kind in ("GFSbox", "KeySbox", "VarKey", "VarTxt", "MMT"):
            for _, case in cases(read(f"CBC/CBC{kind}{size}.rsp")):
                cbc += record(*(case[f] for f in ("KEY", "IV", "PLAINTEXT", "CIPHERTEXT")))
    for name, octets in (("gcm.bin", gcm), ("cbc.bin", cbc)):
        with open(name, "wb") as file:
            file.write(octets)


if __name__ == "__main__":
    main(sys.argv[1])
