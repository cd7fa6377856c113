"""Captured packets: reading and writing pcap files, and the TCP streams in them, with the standard library alone.

Just enough for captures of a loopback device and for made-up ones: Ethernet, IPv4, TCP, nothing lost.
"""

import struct
from collections import namedtuple

SYN, ACK, PUSH = 0x02, 0x10, 0x08
_ETHERNET, _IPV4, _TCP = 1, 0x0800, 6

# `number` counts packets of the file from 1, as Wireshark does. `source` and `target` are (address, port).
Segment = namedtuple("Segment", "number source target sequence flags payload")


class BrokenCapture(Exception):
    """The capture is not what it must be; the message says in which way."""


def segments_of(data):
    """The TCP segments of a pcap file. An incomplete last packet, of a capture that goes on, is left out."""
    if len(data) < 24:
        return
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    if magic not in (0xA1B2C3D4, 0xA1B23C4D) or link != _ETHERNET:
        raise BrokenCapture(f"not a little-endian pcap file of Ethernet packets: {data[:24].hex()}")
    at, number = 24, 0
    while at + 16 <= len(data):
        _, _, captured, original = struct.unpack_from("<IIII", data, at)
        if at + 16 + captured > len(data):
            return
        number += 1
        if captured < original:
            raise BrokenCapture(f"packet {number} was cut from {original} bytes to {captured}")
        packet, at = data[at + 16:at + 16 + captured], at + 16 + captured
        segment = _segment(number, packet)
        if segment:
            yield segment


def _segment(number, packet):
    if struct.unpack_from(">H", packet, 12)[0] != _IPV4 or packet[23] != _TCP:
        return None
    ip_bytes = (packet[14] & 15) * 4
    # The device may leave the length to be filled in later; then the packet ends where it ends.
    total = struct.unpack_from(">H", packet, 16)[0] or len(packet) - 14
    tcp = 14 + ip_bytes
    source_port, target_port, sequence, _, offset, flags = struct.unpack_from(">HHIIBB", packet, tcp)
    payload = packet[tcp + (offset >> 4) * 4:14 + total]
    source, target = packet[26:30], packet[30:34]
    return Segment(number, (_dotted(source), source_port), (_dotted(target), target_port), sequence, flags, payload)


def _dotted(address):
    return ".".join(map(str, address))


def streams_of(segments):
    """The directions of all connections: lists of (packet number, bytes), keyed by (source, target).

    What was sent twice counts once. What is missing is an error, as is a connection that began before the capture.
    """
    streams, expected = {}, {}
    for segment in segments:
        key = (segment.source, segment.target)
        if segment.flags & SYN:
            if key in streams:
                raise BrokenCapture(f"two connections from {key[0]} to {key[1]}")
            streams[key], expected[key] = [], segment.sequence + 1 & 0xFFFFFFFF
            continue
        if not segment.payload:
            continue
        if key not in streams:
            raise BrokenCapture(f"packet {segment.number} belongs to a connection whose beginning is not captured")
        ahead = segment.sequence - expected[key] & 0xFFFFFFFF
        if ahead and ahead < 0x80000000:
            raise BrokenCapture(f"{ahead} bytes before packet {segment.number} are not captured")
        fresh = segment.payload[-ahead & 0xFFFFFFFF:]
        if fresh:
            streams[key].append((segment.number, fresh))
            expected[key] = expected[key] + len(fresh) & 0xFFFFFFFF
    return streams


class PcapWriter:
    """A capture of made-up TCP segments, in memory."""

    def __init__(self):
        self.data = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, _ETHERNET))
        self.packets = 0
        self.sent = {}

    def _packet(self, source_port, target_port, flags, payload):
        key = (source_port, target_port)
        sequence = self.sent.get(key, 1000)
        self.sent[key] = sequence + len(payload) + (1 if flags & SYN else 0)
        tcp = struct.pack(">HHIIBBHHH", source_port, target_port, sequence, 1, 5 << 4, flags, 0xFFFF, 0, 0)
        ip = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp) + len(payload), 0, 0, 64, _TCP, 0, b"\x7f\0\0\x01", b"\x7f\0\0\x01")
        packet = bytes(12) + struct.pack(">H", _IPV4) + ip + tcp + payload
        self.packets += 1
        self.data += struct.pack("<IIII", self.packets, 0, len(packet), len(packet)) + packet

    def stream(self, source_port, target_port, pieces):
        """One direction of a connection, each piece a segment of its own."""
        self._packet(source_port, target_port, SYN, b"")
        for piece in pieces:
            self._packet(source_port, target_port, ACK | PUSH, piece)
