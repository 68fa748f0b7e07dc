import ctypes, errno, os, select, signal, socket, struct, sys, threading, time

signal.alarm(60)  # a test that fails leaves nothing behind
libc = ctypes.CDLL(None, use_errno=True)
NEWSA, DELSA, GETSA, FLUSHSA, NEWAE, GETSADINFO = 0x10, 0x11, 0x12, 0x1C, 0x1E, 0x23
REQUEST, ACK, DUMP = 1, 4, 0x300


def xfrm(flags=0):
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | flags, 6)


def message(kind, seq, flags=REQUEST | ACK, body=bytes(24)):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, seq, 0) + body


def flush(seq):
    return message(FLUSHSA, seq, body=bytes(4))


def header(octets):
    return struct.unpack_from("=IHHII", octets)


def status(octets, seq=None):
    """The error number of an acknowledgement or an error."""
    _, kind, _, number, _ = header(octets)
    assert kind == 2, octets
    assert seq is None or number == seq, (number, seq)
    return -struct.unpack_from("=i", octets, 16)[0]


def ask(s, octets):
    s.send(octets)
    return status(s.recv(65536), header(octets)[3])


def say(*words):
    print(*words, flush=True)


def hear():
    return sys.stdin.readline().strip()
