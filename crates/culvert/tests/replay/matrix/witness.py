"""The other end of every SA of the matrix: scapy and python3-cryptography, in one process.

  witness.py SCAPY-ORACLE

One request a line on standard input, one answer a line on standard output, both JSON. A request is
{"do": "plain" | "seal" | "open" | "judge", "cases": [...]}, its answer a list with one
entry for each case; see the function of that name.

What scapy 2.5 lacks or has wrong is done here by classes in the places that scapy has for them, one
for each gap, and every SA says by which of them it works, its gap. Those classes share nothing with
culvert: they are the text of an RFC over python3-cryptography.
"""

import importlib.machinery
import importlib.util
import json
import random
import struct
import sys

sys.dont_write_bytecode = True
LOADER = importlib.machinery.SourceFileLoader("oracle", sys.argv[1])
oracle = importlib.util.module_from_spec(importlib.util.spec_from_loader("oracle", LOADER))
LOADER.exec_module(oracle)

from cryptography.exceptions import InvalidTag  # noqa: E402
from cryptography.hazmat.primitives import hashes, hmac  # noqa: E402
from cryptography.hazmat.primitives.ciphers import algorithms, modes  # noqa: E402
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305  # noqa: E402
from scapy.compat import raw  # noqa: E402
from scapy.layers import ipsec  # noqa: E402
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6  # noqa: E402
from scapy.layers.ipsec import AH, ESP, IPSecIntegrityError, SecurityAssociation  # noqa: E402
from scapy.packet import Raw, split_layers  # noqa: E402

# scapy would take ESP inside AH for what is to be signed, and datagrams of port 4500 for ESP: what
# an SA carries is octets.
split_layers(IP, ESP, proto=50)
split_layers(IPv6, ESP, nh=50)
split_layers(UDP, ESP, dport=4500)
split_layers(UDP, ESP, sport=4500)

TRUNCATED = "AES-GCM with an ICV of 8 or 12 octets: scapy 2.5 makes 16 octets of any AES-GCM"
IMPLICIT = "implicit IV (RFC 8750): not in scapy"
GMAC = "AES-GMAC (RFC 4543): not in scapy 2.5"
HIGH = "ESN with an HMAC of its own in ESP: scapy does not append the high half (RFC 4303 2.2.1)"

ESP_NUMBER, AH_NUMBER, UDP_NUMBER = 50, 51, 17
DIGEST_LENGTHS = {"sha256": 32, "sha384": 48, "sha512": 64}
SCAPY_HMACS = {"sha256": "SHA2-256-128", "sha384": "SHA2-384-192", "sha512": "SHA2-512-256"}
HASHES = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}


def sequence(high, low):
    """The 64 bits of a number, the high half zero without ESN."""
    return struct.pack("!II", high or 0, low)


def truncated_gcm(icv_length):
    """AES-GCM by the older of the two ways in which scapy calls python3-cryptography."""
    return ipsec.CryptAlgo(f"AES-GCM-{icv_length}", cipher=algorithms.AES, mode=modes.GCM,
                           salt_size=4, block_size=1, iv_size=8, icv_size=icv_length,
                           format_mode_iv=lambda sa, iv, **_: sa.crypt_salt + iv)


class Implicit(ipsec.CryptAlgo):
    """No IV on the wire: the nonce is salt and 64-bit number (RFC 8750 section 5)."""

    def __init__(self, name, cipher):
        super().__init__(name, cipher=cipher, mode=None, key_size=(16, 24, 32), salt_size=4,
                         block_size=1, iv_size=0, icv_size=16)

    def nonce_and_aad(self, sa, esp, esn_en, esn):
        """The inputs beside key and text."""
        number = sequence(esn if esn_en else 0, esp.seq)
        spi = struct.pack("!I", esp.spi)
        return sa.crypt_salt + number, spi + (number if esn_en else number[4:])

    def encrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        nonce, aad = self.nonce_and_aad(sa, esp, esn_en, esn)
        data = self.cipher(key).encrypt(nonce, esp.data_for_encryption(), aad)
        return ESP(spi=esp.spi, seq=esp.seq, data=data)

    def decrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        nonce, aad = self.nonce_and_aad(sa, esp, esn_en, esn)
        try:
            return plain_esp(esp, b"", self.cipher(key).decrypt(nonce, esp.data, aad))
        except InvalidTag as error:
            raise IPSecIntegrityError(error) from error


class EspGmac(ipsec.CryptAlgo):
    """Text in clear; the ICV covers SPI, number, IV and text (RFC 4543 section 3.3)."""

    def __init__(self):
        super().__init__("AES-NULL-GMAC", cipher=AESGCM, mode=None, key_size=(16, 24, 32),
                         salt_size=4, block_size=1, iv_size=8, icv_size=16)

    def aad(self, esp, iv, text, esn_en, esn):
        """All that is covered."""
        high = struct.pack("!I", esn) if esn_en else b""
        return struct.pack("!I", esp.spi) + high + struct.pack("!I", esp.seq) + iv + text

    def encrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        text = esp.data_for_encryption()
        icv = AESGCM(key).encrypt(sa.crypt_salt + esp.iv, b"",
                                  self.aad(esp, esp.iv, text, esn_en, esn))
        return ESP(spi=esp.spi, seq=esp.seq, data=esp.iv + text + icv)

    def decrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        iv, text, icv = esp.data[:8], esp.data[8:-16], esp.data[-16:]
        try:
            AESGCM(key).decrypt(sa.crypt_salt + iv, icv, self.aad(esp, iv, text, esn_en, esn))
        except InvalidTag as error:
            raise IPSecIntegrityError(error) from error
        return plain_esp(esp, iv, text)


def plain_esp(esp, iv, text):
    """What scapy makes of a decrypted text."""
    length, next_header = text[-2], text[-1]
    return ipsec._ESPPlain(spi=esp.spi, seq=esp.seq, iv=iv, data=text[:-2 - length],
                           padding=text[len(text) - 2 - length:-2], padlen=length, nh=next_header)


class EspHmacHigh(ipsec.AuthAlgo):
    """HMAC over the packet and then the high half, which is not sent (RFC 4303 section 2.2.1)."""

    def __init__(self, name):
        super().__init__(f"{name}-ESN", mac=None, digestmod=HASHES[name],
                         icv_size=DIGEST_LENGTHS[name] // 2)
        self.high = 0

    def icv(self, key, covered):
        """The truncated digest."""
        mac = hmac.HMAC(key, self.digestmod())
        mac.update(covered + struct.pack("!I", self.high))
        return mac.finalize()[:self.icv_size]

    def sign(self, pkt, key, esn_en=False, esn=0):
        pkt[ESP].data += self.icv(key, raw(pkt[ESP]))
        return pkt

    def verify(self, pkt, key, esn_en=False, esn=0):
        octets = raw(pkt)
        if self.icv(key, octets[:-self.icv_size]) != octets[-self.icv_size:]:
            raise IPSecIntegrityError("HMAC with ESN")


class AhGmac(ipsec.AuthAlgo):
    """The ICV field is IV and tag, and zero where it is covered (RFC 4543 section 4)."""

    def __init__(self, salt):
        super().__init__("AES-GMAC-AH", mac=AESGCM, digestmod=None, icv_size=24)
        self.salt, self.iv = salt, bytes(8)

    def tag(self, packet, key, esn, sending):
        """The tag of a packet, under the IV."""
        covered = raw(ipsec.zero_mutable_fields(packet.copy(), sending=sending))
        covered += struct.pack("!I", esn[1]) if esn[0] else b""
        return AESGCM(key).encrypt(self.salt + self.iv, b"", covered)

    def sign(self, pkt, key, esn_en=False, esn=0):
        pkt[AH].icv = self.iv + self.tag(pkt, key, (esn_en, esn), True)
        return pkt

    def verify(self, pkt, key, esn_en=False, esn=0):
        pkt[AH].padding, pkt[AH].icv = pkt[AH].icv[24:], pkt[AH].icv[:24]
        self.iv = pkt[AH].icv[:8]
        if self.tag(pkt, key, (esn_en, esn), False) != pkt[AH].icv[8:]:
            raise IPSecIntegrityError("GMAC in AH")


ipsec.CRYPT_ALGOS["AES-GCM-12"] = truncated_gcm(12)
ipsec.CRYPT_ALGOS["AES-GCM-8"] = truncated_gcm(8)
ipsec.CRYPT_ALGOS["AES-GCM-IIV"] = Implicit("AES-GCM-IIV", AESGCM)
ipsec.CRYPT_ALGOS["CHACHA20-POLY1305-IIV"] = Implicit("CHACHA20-POLY1305-IIV", ChaCha20Poly1305)
ipsec.CRYPT_ALGOS["AES-NULL-GMAC"] = EspGmac()
CIPHERS = {"gcm16": ("AES-GCM", None), "gcm12": ("AES-GCM-12", TRUNCATED),
           "gcm8": ("AES-GCM-8", TRUNCATED), "gcm16iiv": ("AES-GCM-IIV", IMPLICIT),
           "gmac": ("AES-NULL-GMAC", GMAC)}


class Sa:
    """One SA. Its description has the keys protocol, mode, algorithm, key, spi, source,
    destination, encapsulated, esn, and reserved: what its AH headers say there, 0 if absent."""

    def __init__(self, case):
        self.spi, self.esn = case["spi"], case["esn"]
        self.source, self.destination = case["source"], case["destination"]
        self.encapsulated, self.is_tunnel = case["encapsulated"], case["mode"] == "tunnel"
        self.protocol = AH if case["protocol"] == "ah" else ESP
        self.version = 6 if ":" in self.source else 4
        self.gap, self.iv_length, self.reserved = None, 0, case.get("reserved", 0)
        key = bytes.fromhex(case["key"])
        name = case["algorithm"]
        choose = self.choose_ah if self.protocol is AH else self.choose_esp
        self.scapy = SecurityAssociation(self.protocol, spi=self.spi, esn_en=self.esn,
                                         **choose(name, key))
        if self.special is not None:
            self.scapy.auth_algo = self.special

    def choose_esp(self, name, key):
        """scapy's words for an algorithm of ESP and its keys."""
        self.special = None
        if name.startswith("chacha20poly1305"):
            iiv = name.endswith("iiv")
            self.gap, self.iv_length = IMPLICIT if iiv else None, 0 if iiv else 8
            suffix = "-IIV" if iiv else ""
            return {"crypt_algo": "CHACHA20-POLY1305" + suffix, "crypt_key": key}
        cipher, _, digest = name.partition("-")
        if not digest:
            kind = cipher[len("aes128"):]
            crypt, self.gap = CIPHERS[kind]
            self.iv_length = 0 if kind == "gcm16iiv" else 8
            return {"crypt_algo": crypt, "crypt_key": key}
        mac_key = key[-DIGEST_LENGTHS[digest]:]
        found = {"auth_algo": SCAPY_HMACS[digest], "auth_key": mac_key}
        if self.esn:
            self.gap, self.special = HIGH, EspHmacHigh(digest)
        if cipher != "null":
            self.iv_length = 16
            found.update(crypt_algo="AES-CBC", crypt_key=key[:-len(mac_key)])
        return found

    def choose_ah(self, name, key):
        """scapy's words for an algorithm of AH and its keys."""
        self.special = None
        if name in SCAPY_HMACS:
            return {"auth_algo": SCAPY_HMACS[name], "auth_key": key}
        self.gap, self.special = GMAC, AhGmac(key[-4:])
        self.iv_length = 8
        return {"auth_algo": "SHA2-256-128", "auth_key": key[:-4]}

    def icv_length(self):
        """Octets at the end of ESP, or of the ICV field of AH."""
        crypt = 0 if self.protocol is AH else self.scapy.crypt_algo.icv_size
        return crypt or self.scapy.auth_algo.icv_size

    def number(self, value):
        """Takes a sequence number for what comes next; answers its halves."""
        high, low = value >> 32, value & 0xFFFFFFFF
        self.scapy.seq_num = low  # scapy takes a seq_num of zero for absent
        if isinstance(self.special, EspHmacHigh):
            self.special.high = high
        return high, low

    def seal(self, packet, value, iv, outer=None):
        """scapy's packet with this number and IV around an IP packet; in a tunnel the outer
        header's fields are `outer`."""
        high, low = self.number(value)
        self.scapy.tunnel_header = None
        if self.is_tunnel:
            header = IP if self.version == 4 else IPv6
            self.scapy.tunnel_header = header(src=self.source, dst=self.destination, **outer)
        if isinstance(self.special, AhGmac):
            self.special.iv = iv
        iv = iv if self.protocol is ESP else None
        found = self.scapy.encrypt(oracle.parse_ip(packet), seq_num=low, iv=iv, esn=high)
        if self.reserved:
            found[AH].reserved, found[AH].icv = self.reserved, bytes(self.icv_length())
            self.scapy.auth_algo.sign(found, self.scapy.auth_key, esn_en=self.esn, esn=high)
        return bytes(found)

    def open(self, packet, value):
        """What scapy takes out of a packet without UDP; raises IPSecIntegrityError."""
        high, _ = self.number(value)
        self.scapy.tunnel_header = self.is_tunnel or None
        if self.protocol is AH:
            return bytes(self.scapy.decrypt(oracle.parse_ip(packet), esn=high))
        at = find(packet, ESP_NUMBER)
        esp = ESP(packet[at:])
        if packet[0] >> 4 == 4 or at == 40:
            header = oracle.parse_ip(packet[:at])
            return bytes(self.scapy.decrypt(header / esp, esn=high))
        # scapy would read what was inside as another of the extension headers in front.
        self.scapy.auth_algo.verify(esp, self.scapy.auth_key)
        inside = self.decrypt(esp, high)
        out = bytearray(packet[:at] + raw(inside.data))
        out[announced_at(packet)] = inside.nh
        return relength(out)

    def decrypt(self, esp, high):
        """scapy's parts of an ESP packet that was verified, unless decryption does that."""
        return self.scapy.crypt_algo.decrypt(self.scapy, esp, self.scapy.crypt_key,
                                             self.icv_length(), esn_en=self.esn, esn=high)


def find(packet, protocol):
    """Where the header of this protocol starts: behind IPv4, or IPv6 and its extension headers."""
    if packet[0] >> 4 == 4:
        if packet[9] != protocol:
            raise ValueError(f"protocol {packet[9]}: expected {protocol}")
        return (packet[0] & 0xF) * 4
    kind, at = packet[6], 40
    while kind in (0, 43, 60):
        kind, at = packet[at], at + (packet[at + 1] + 1) * 8
    if kind != protocol:
        raise ValueError(f"next header {kind}: expected {protocol}")
    return at


def announced_at(packet):
    """Offset of the octet that names what follows the headers in front."""
    if packet[0] >> 4 == 4:
        return 9
    kind, at, said = packet[6], 40, 6
    while kind in (0, 43, 60):
        kind, at, said = packet[at], at + (packet[at + 1] + 1) * 8, at
    return said


def relength(packet):
    """The packet with right lengths and IPv4 checksum."""
    packet = bytearray(packet)
    if packet[0] >> 4 == 4:
        struct.pack_into("!H", packet, 2, len(packet))
        fix_checksum(packet)
    else:
        struct.pack_into("!H", packet, 4, len(packet) - 40)
    return bytes(packet)


def fix_checksum(packet):
    """Corrects the header checksum of IPv4 in place."""
    if packet[0] >> 4 == 4:
        packet[10:12] = b"\0\0"
        end = (packet[0] & 0xF) * 4
        struct.pack_into("!H", packet, 10, oracle.checksum(bytes(packet[:end])))


def encapsulate(sa, packet):
    """UDP between the headers and ESP (RFC 3948 section 2.1)."""
    at = find(packet, ESP_NUMBER)
    esp = packet[at:]
    datagram = struct.pack("!HHHH", 4500, 4500, 8 + len(esp), 0) + esp
    if sa.version == 6:
        value = oracle.udp_checksum(6, sa.source, sa.destination, datagram) or 0xFFFF
        datagram = datagram[:6] + struct.pack("!H", value) + datagram[8:]
    out = bytearray(packet[:at] + datagram)
    out[announced_at(packet)] = UDP_NUMBER
    return relength(out)


def decapsulate(sa, packet):
    """The packet without its UDP header, and how its checksum was: "zero" or "ok"."""
    at = find(packet, UDP_NUMBER)
    source, destination, length, value = struct.unpack("!HHHH", packet[at:at + 8])
    assert (source, destination) == (4500, 4500), f"UDP ports {source}, {destination}"
    assert length == len(packet) - at, f"UDP length {length}"
    if value:
        datagram = packet[at:]
        total = oracle.udp_checksum(sa.version, sa.source, sa.destination, datagram)
        assert total == 0, "the UDP checksum does not verify"
    out = bytearray(packet[:at] + packet[at + 8:])
    out[announced_at(packet)] = ESP_NUMBER
    return relength(out), "ok" if value else "zero"


def tos_of(packet):
    """The TOS or traffic class octet."""
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] & 0xF) << 4 | packet[1] >> 4


def outer_fields(packet):
    """scapy's words for the fields of a header that the sender chooses."""
    if packet[0] >> 4 == 4:
        return {"tos": packet[1], "id": struct.unpack("!H", packet[4:6])[0],
                "flags": packet[6] >> 5, "ttl": packet[8]}
    word = struct.unpack("!I", packet[:4])[0]
    return {"tc": word >> 20 & 0xFF, "fl": word & 0xFFFFF, "hlim": packet[7]}


def plain(case):
    """IP packets from `source` to `destination` with payloads of `sizes` octets: varied protocols,
    ports, DSCP, ECN, TTL, don't fragment, flow labels, all drawn from `seed`. Not in them: ports of
    IKE, and a TTL that one hop uses up."""
    draw = random.Random(case["seed"])
    for size in case["sizes"]:
        tos, ttl = draw.choice((0, draw.randrange(256))), draw.randrange(2, 256)
        ends = {"src": case["source"], "dst": case["destination"]}
        is_v4 = ":" not in case["source"]
        if is_v4:
            header = IP(tos=tos, ttl=ttl, id=draw.randrange(1 << 16), flags=draw.choice(("", "DF")),
                        **ends)
        else:
            header = IPv6(tc=tos, hlim=ttl, fl=draw.choice((0, draw.randrange(1 << 20))), **ends)
        ports = {"sport": draw.randrange(5000, 65536), "dport": draw.randrange(5000, 65536)}
        upper = draw.choice((UDP(**ports), TCP(seq=draw.randrange(1 << 32), flags="PA", **ports),
                             ICMP(id=5, seq=1) if is_v4 else ICMPv6EchoRequest(id=5, seq=1)))
        yield bytes(header / upper / Raw(draw.randbytes(size))).hex()


def seal(case):
    """scapy's packets: {"gap", "icv_length", "sealed": [hex], "damaged": [[what, hex]]}. `packets`
    are sealed under the numbers `numbers`; the damaged ones are the first of them with one bit
    changed, in each part that has to be noticed."""
    sa = Sa(case)
    draw = random.Random(case["spi"])
    sealed = []
    for packet, number in zip(map(bytes.fromhex, case["packets"]), case["numbers"]):
        outer = {"tos": tos_of(packet), "ttl": 63, "id": number & 0xFFFF}
        if sa.version == 6:
            outer = {"tc": tos_of(packet), "hlim": 63}
        found = sa.seal(packet, number, draw.randbytes(sa.iv_length), outer)
        sealed.append(encapsulate(sa, found) if sa.encapsulated else found)
    damaged = [[what, bytes(octets).hex()] for what, octets in damage(sa, sealed[0])]
    return {"gap": sa.gap, "icv_length": sa.icv_length(), "damaged": damaged,
            "sealed": [packet.hex() for packet in sealed]}


def parts(sa, packet):
    """(name, first octet, octet behind the last) of the parts that the ICV guards, in order."""
    end = len(packet)
    if sa.protocol is AH:
        at = find(packet, AH_NUMBER)
        length = (packet[at + 1] + 2) * 4
        icv_end = at + 12 + sa.icv_length()
        source = (12, 16) if packet[0] >> 4 == 4 else (8, 24)
        found = [("outer source", *source), ("next header", at, at + 1),
                 ("reserved", at + 2, at + 4), ("number", at + 8, at + 12),
                 ("icv", at + 12, icv_end), ("padding of the icv", icv_end, at + length),
                 ("payload", at + length, end)]
        if packet[0] >> 4 == 4:
            found.append(("identification", 4, 6))
    else:
        at = find(packet, UDP_NUMBER) + 8 if sa.encapsulated else find(packet, ESP_NUMBER)
        text, icv = at + 8 + sa.iv_length, end - sa.icv_length()
        found = [("number", at + 4, at + 8), ("iv", at + 8, text), ("text", text, icv - 2),
                 ("pad length", icv - 2, icv - 1), ("next header", icv - 1, icv),
                 ("icv", icv, end)]
    return [part for part in found if part[1] < part[2]]


def damage(sa, packet):
    """The packet with a bit changed, once in each part; in the ICV in the first and last octet."""
    for name, first, last in parts(sa, packet):
        if name == "number":  # far ahead, and not one that was seen
            places = [(first, 7)]
        elif name == "icv":
            places = [(first, 0), (last - 1, 7)]
        elif name == "next header":
            places = [(first, 6)]
        else:
            places = [((first + last) // 2, sa.spi % 8)]
        for at, bit in places:
            changed = bytearray(packet)
            changed[at] ^= 1 << bit
            fix_checksum(changed)
            yield name, changed


def open_(case):
    """What scapy finds in culvert's `packets`, sealed under `numbers` around `plain`, which are as
    they were to be sealed. {"gap", "found": [{...}], "unnoticed": [what]}; raises when anything is
    not as it must be, octet for octet."""
    sa = Sa(case)
    found = []
    packets = [bytes.fromhex(packet) for packet in case["packets"]]
    for packet, number, inner in zip(packets, case["numbers"], map(bytes.fromhex, case["plain"])):
        found.append(open_one(sa, packet, number, inner))
    unnoticed = []
    for what, changed in damage(sa, packets[0]):
        changed = bytes(changed)
        if sa.encapsulated:
            # UDP's own checksum is not what has to notice.
            out = bytearray(changed)
            at = find(changed, UDP_NUMBER)
            out[at + 6:at + 8] = b"\0\0"
            changed = decapsulate(sa, bytes(out))[0]
        try:
            sa.open(changed, altered_number(sa, changed, case["numbers"][0]))
        except IPSecIntegrityError:
            continue
        unnoticed.append(what)
    return {"gap": sa.gap, "found": found, "unnoticed": unnoticed}


def altered_number(sa, packet, number):
    """The number as it is on the wire, below the high half of the one sent."""
    at = find(packet, AH_NUMBER) + 8 if sa.protocol is AH else find(packet, ESP_NUMBER) + 4
    return number >> 32 << 32 | struct.unpack("!I", packet[at:at + 4])[0]


def open_one(sa, packet, number, inner):
    """Facts of one packet of culvert's."""
    protocol = AH_NUMBER if sa.protocol is AH else UDP_NUMBER if sa.encapsulated else ESP_NUMBER
    check_ip(sa, packet)
    udp = None
    if sa.encapsulated:
        packet, udp = decapsulate(sa, packet)
        protocol = ESP_NUMBER
    at = find(packet, protocol)
    assert number & 0xFFFFFFFF == altered_number(sa, packet, number) & 0xFFFFFFFF, "number"
    opened = sa.open(packet, number)
    assert opened == inner, f"scapy opened {opened.hex()}, expected {inner.hex()}"
    iv_at = at + (12 if sa.protocol is AH else 8)
    iv = packet[iv_at:iv_at + sa.iv_length]
    again = sa.seal(inner, number, iv, outer_fields(packet))
    assert again == packet, f"scapy seals it as {again.hex()}, culvert as {packet.hex()}"
    facts = {"tos": tos_of(packet), "ttl": packet[8] if sa.version == 4 else packet[7],
             "df": bool(packet[6] & 0x40) if sa.version == 4 else None, "iv": iv.hex(), "udp": udp,
             "icv_length": sa.icv_length(), "header_length": at}
    if sa.protocol is AH:
        facts.update(next_header=packet[at], payload_length=packet[at + 1],
                     reserved=struct.unpack("!H", packet[at + 2:at + 4])[0])
    else:
        found = sa.decrypt(ESP(packet[at:]), number >> 32)
        facts.update(next_header=found.nh, pad_length=found.padlen)
    return facts


def check_ip(sa, packet):
    """Addresses, lengths and checksum of the header in front."""
    header = oracle.parse_ip(packet)
    assert (header.src, header.dst) == (sa.source, sa.destination), "addresses"
    if sa.version == 4:
        assert oracle.checksum(packet[:header.ihl * 4]) == 0, "IPv4 checksum"
        assert header.len == len(packet), "total length"
    else:
        assert header.plen == len(packet) - 40, "payload length"


def judge(case):
    """What scapy takes out of each of `packets`, sealed under `numbers`; null for those that it
    does not find authentic."""
    sa = Sa(case)
    answers = []
    for packet, number in zip(map(bytes.fromhex, case["packets"]), case["numbers"]):
        try:
            answers.append(sa.open(packet, number).hex())
        except Exception:  # there are many ways in which scapy cannot read a header
            answers.append(None)
    return answers


def answer(request):
    """The answer to one request."""
    function = {"plain": lambda case: list(plain(case)), "seal": seal, "open": open_,
                "judge": judge}[request["do"]]
    answers = []
    for case in request["cases"]:
        try:
            answers.append(function(case))
        except Exception as error:
            names = {key: case.get(key) for key in ("name", "spi", "algorithm", "mode")}
            raise oracle.Wrong(f"{names}: {type(error).__name__}: {error}") from error
    return answers


def main():
    """Requests until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
