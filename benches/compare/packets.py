"""Packets and configuration for ipsec-secgw: what culvert's own bench uses, as far as it can be."""

import ipaddress
import struct

SOURCE = "10.1.0.1"
FIRST_DESTINATION = int(ipaddress.ip_address("10.128.0.0"))
FIRST_SPI = 1000
LINK = bytes.fromhex("020000000001" "020000000002" "0800")


def destination(number):
    return str(ipaddress.ip_address(FIRST_DESTINATION + number))


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(number, size):
    """A UDP packet of `size` octets for a destination, in Ethernet."""
    ends = ipaddress.ip_address(SOURCE).packed + ipaddress.ip_address(destination(number)).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, 17, 0) + ends
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    udp = struct.pack("!HHHH", 1000, 2000, size - 20, 0)
    return LINK + header + udp + b"\x5a" * (size - 28)


def write_capture(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for data in frames:
            file.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)


def count_capture(path):
    """Packets in a capture."""
    data = path.read_bytes()
    at, count = 24, 0
    while at + 16 <= len(data):
        at += 16 + struct.unpack_from("<I", data, at + 8)[0]
        count += at <= len(data)
    return count


def configuration(direction, sas):
    """One policy for one destination, and one SA, each; all leads to port 0."""
    lines = []
    way = {"outbound": "out", "inbound": "in"}[direction]
    for number in range(sas):
        spi = FIRST_SPI + number
        key = ":".join(f"{(octet * 3 + number * 5 + (number >> 8) + 1) & 255:02x}"
                       for octet in range(20))
        lines.append(f"sp ipv4 {way} esp protect {spi} pri 1 dst {destination(number)}/32 "
                     "sport 0:65535 dport 0:65535")
        lines.append(f"sa {way} {spi} aead_algo aes-128-gcm aead_key {key} mode ipv4-tunnel "
                     f"src 172.16.0.1 dst 172.17.{number >> 8 & 255}.{number & 255}")
    lines += [f"rt ipv4 dst {prefix} port 0" for prefix in ("172.17.0.0/16", "10.0.0.0/8")]
    return "\n".join(lines) + "\n"
