"""A subscriber that costs next to nothing: counts messages, and how old some of them are.

Plain socket, MQTT 3.1.1, QoS 0. Of the PUBLISH packets that arrive every n-th is decoded for its
`ts`. Prints one JSON line on SIGTERM: messages, and percentiles of their age in milliseconds.

Usage: python -m bench.subscriber PORT TOPIC_FILTER
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from datetime import datetime

SAMPLE_EVERY = 50
READ_BYTES = 1 << 20


def main() -> None:
    """Connect, subscribe, count until SIGTERM."""
    port, topic = int(sys.argv[1]), sys.argv[2].encode()
    link = socket.create_connection(("127.0.0.1", port))
    link.sendall(b"\x10\x14\x00\x04MQTT\x04\x02\x00\x00\x00\x08bench-01")
    assert link.recv(4)[3] == 0, "connection refused"
    body = b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x00"
    link.sendall(bytes([0x82, len(body)]) + body)
    assert link.recv(5)[0] == 0x90, "subscription refused"
    print("ready", flush=True)
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    link.settimeout(0.2)
    messages = 0
    ages_ms: list[float] = []
    rest = b""
    while not stopped:
        try:
            data = link.recv(READ_BYTES)
        except TimeoutError:
            continue
        if not data:
            break
        rest, messages = _take(rest + data, messages, ages_ms)
    ages_ms.sort()
    quantiles = {
        f"p{share:g}_ms": round(ages_ms[int(len(ages_ms) * share / 100)], 1)
        for share in (50, 95, 99)
        if ages_ms
    }
    print(json.dumps({"messages": messages, "sampled": len(ages_ms), **quantiles}), flush=True)


def _take(data: bytes, messages: int, ages_ms: list[float]) -> tuple[bytes, int]:
    """Walk over whole packets; returns what is left."""
    at, size = 0, len(data)
    now_ms = time.time() * 1000
    while size - at >= 5:
        length, start = data[at + 1], at + 2
        if length & 0x80:
            length = length & 0x7F | data[at + 2] << 7
            start = at + 3
            if length & 0x4000:
                length = length & 0x3FFF | data[at + 3] << 14
                start = at + 4
        if start + length > size:
            break
        if data[at] & 0xF0 == 0x30:
            messages += 1
            if messages % SAMPLE_EVERY == 0:
                topic = data[start] << 8 | data[start + 1]
                text = data[start + 2 + topic + 7 : start + 2 + topic + 31].decode()
                ages_ms.append(now_ms - datetime.fromisoformat(text).timestamp() * 1000)
        at = start + length
    return data[at:], messages


if __name__ == "__main__":
    main()
