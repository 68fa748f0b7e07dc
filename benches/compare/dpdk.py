"""DPDK's ipsec-secgw, as Debian has it: built from its package of examples, started, measured."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import time

import packets
import processes

PACKAGES = ("dpdk dpdk-dev libdpdk-dev build-essential pkg-config libbsd-dev libipsec-mb-dev "
            "python3 iproute2 util-linux").split()
WINDOW = 0.05  # seconds of CPU time; culvert's rounds are as long
HUGE_MEGABYTES = 512


def installed(package):
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package],
                           capture_output=True, text=True, check=False)
    return query.stdout.endswith(" installed")


def version(package):
    return subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package],
                          capture_output=True, text=True, check=True).stdout


def install():
    missing = [package for package in PACKAGES if not installed(package)]
    if not missing:
        return
    print("Installing:", *missing)
    root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*root, "apt-get", "-qq", "update"], check=True)
    subprocess.run([*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "install",
                    "-y", "--no-install-recommends", *missing], check=True,
                   stdout=subprocess.DEVNULL)


def build(work):
    """The path of ipsec-secgw. Its source is in the package of documentation."""
    directory = work / "ipsec-secgw"
    program = directory / "build" / "ipsec-secgw-shared"
    if program.exists():
        return program
    print("Building ipsec-secgw")
    unpacked = work / "dpdk-doc"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download",
                    f"dpdk-doc={version('dpdk-dev')}"], cwd=unpacked, check=True)
    package = next(unpacked.glob("*.deb"))
    subprocess.run(["dpkg", "-x", package.name, "x"], cwd=unpacked, check=True)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(unpacked / "x/usr/share/dpdk/examples/ipsec-secgw", directory)
    shutil.rmtree(unpacked)
    # As shipped it demands checksum offload, which no port in software offers.
    source = directory / "ipsec-secgw.c"
    text = source.read_text()
    assert ".offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM" in text, "another version of ipsec-secgw"
    source.write_text(text.replace(".offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM", ".offloads = 0"))
    with open(work / "build.log", "w", encoding="utf-8") as log:
        subprocess.run(["make", "-C", directory, "shared"], check=True, stdout=log, stderr=log)
    return program


def runtime_directory(prefix):
    """Where a DPDK process keeps its socket."""
    root = "/var/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp")
    return pathlib.Path(root) / "dpdk" / prefix


class Telemetry:
    """The counters of a DPDK process, over its socket."""

    def __init__(self, prefix):
        path = str(runtime_directory(prefix) / "dpdk_telemetry.v2")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        for _ in range(200):
            with contextlib.suppress(OSError):
                self.socket.connect(path)
                break
            time.sleep(0.05)
        self.socket.recv(65536)

    def port(self, number=0):
        self.socket.send(f"/ethdev/stats,{number}".encode())
        return json.loads(self.socket.recv(1 << 20))["/ethdev/stats"]

    def close(self):
        self.socket.close()


class Dpdk:
    """Runs of ipsec-secgw and testpmd over net_pcap, which reads a capture again and again."""

    def __init__(self, program, work, core, huge):
        self.program, self.work, self.core, self.huge = program, work, core, huge
        self.prefix = f"culvert-compare-{os.getpid()}"

    def environment(self, vdevs, lcores):
        memory = ["--in-memory", "-m", str(HUGE_MEGABYTES)]
        if not self.huge:
            memory = ["--no-huge", "-m", "1024"]
        devices = [word for vdev in vdevs for word in ("--vdev", vdev)]
        return ["--lcores", lcores, "-n", "1", "--no-pci", *memory,
                "--file-prefix", self.prefix, *devices]

    def secgw(self, direction, sas, capture):
        """The command: library mode, one lcore, one port for both ways, window off."""
        config = self.work / "secgw.cfg"
        config.write_text(packets.configuration(direction, sas))
        vdevs = [f"net_pcap0,{capture}", "crypto_aesni_gcm0"]
        return [str(self.program), *self.environment(vdevs, f"0@{self.core}"),
                "--", "-l", "-p", "0x1", "-P", "--config", "(0,0,0)", "-f", str(config),
                "--rxoffload", "0x0", "--txoffload", "0x0", "-s", "32768",
                *(["-u", "0x1"] if direction == "inbound" else [])]

    def testpmd(self, capture):
        other = 0 if self.core else 1
        return ["stdbuf", "-oL", "dpdk-testpmd",
                *self.environment([f"net_pcap0,{capture}"], f"0@{other},1@{self.core}"),
                "--", "--forward-mode=io", "--port-topology=loop", "--no-mlockall",
                "--auto-start", "--rxq=1", "--txq=1", "--burst=32", "--total-num-mbufs=32768"]

    def plain(self, size, sas):
        """A capture of plaintext, one packet for each SA; 64 of one."""
        path = self.work / f"plain-{size}-{sas}.pcap"
        if not path.exists():
            count = max(sas, 64)
            packets.write_capture(path, (packets.frame(n % sas, size) for n in range(count)))
        return path

    def sealed(self, size, sas):
        """The same, sealed by ipsec-secgw."""
        path, count = self.work / f"sealed-{size}-{sas}.pcap", max(sas, 64)
        if path.exists() and packets.count_capture(path) == count:
            return path
        capture = f"rx_pcap={self.plain(size, sas)},tx_pcap={path}"
        with self.running(self.secgw("outbound", sas, capture), "entering main loop"):
            telemetry = Telemetry(self.prefix)
            deadline = time.monotonic() + 60
            while telemetry.port()["opackets"] < count and time.monotonic() < deadline:
                time.sleep(0.05)
            telemetry.close()
        sealed = packets.count_capture(path)
        assert sealed == count, f"ipsec-secgw sealed {sealed} of {count} packets"
        return path

    @contextlib.contextmanager
    def running(self, command, ready):
        try:
            with processes.daemon(command, self.work / "dpdk.log", ready) as child:
                yield child
        finally:
            shutil.rmtree(runtime_directory(self.prefix), ignore_errors=True)

    def cycles(self, direction, size, sas, seconds):
        """TSC cycles a packet of ipsec-secgw in each window."""
        capture = (self.plain if direction == "outbound" else self.sealed)(size, sas)
        command = self.secgw(direction, sas, f"rx_pcap={capture},infinite_rx=1")
        with self.running(command, "entering main loop") as child:
            return self.windows(child, seconds)

    def io_cycles(self, size, sas, seconds):
        """TSC cycles a packet of receiving and sending alone, by testpmd."""
        capture = f"rx_pcap={self.plain(size, sas)},infinite_rx=1"
        with self.running(self.testpmd(capture), "Press enter") as child:
            return self.windows(child, seconds)

    def windows(self, child, seconds):
        """The process's CPU time for each packet: only its lcore has anything to do."""
        time.sleep(0.5)
        telemetry, ticks = Telemetry(self.prefix), processes.tsc_ticks_per_nanosecond()
        clock = processes.cpu_clock(child.pid)

        def snapshot():
            # Asking takes a moment, which is to be far less than a window.
            while True:
                start, begun = time.clock_gettime(clock), time.monotonic()
                port = telemetry.port()
                end, ended = time.clock_gettime(clock), time.monotonic()
                if ended - begun < WINDOW / 200:
                    return (start + end) / 2, port

        costs, received, sent = [], 0, 0
        before = snapshot()
        for _ in range(max(3, round(seconds / WINDOW))):
            while time.clock_gettime(clock) < before[0] + WINDOW:
                time.sleep(WINDOW / 10)
            after = snapshot()
            packets_out = after[1]["opackets"] - before[1]["opackets"]
            received += after[1]["ipackets"] - before[1]["ipackets"]
            sent += packets_out
            if packets_out:
                costs.append((after[0] - before[0]) * 1e9 * ticks / packets_out)
            before = after
        telemetry.close()
        assert sent > 0.98 * received, f"only {sent} of {received} packets came out"
        return {"median": statistics.median(costs), "best": min(costs), "windows": len(costs)}
