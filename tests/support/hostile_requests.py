"""Requests crafted to exhaust the service, and their effect on the latency of other clients."""

import threading
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import requests

TIMEOUT_S = 60
MB = 10**6
COMPRESSED = "1 GB of zeros, compressed"
BOUNDARY = "xyz"
FORM_TYPE = "multipart/form-data"
FORM = {"Content-Type": f"{FORM_TYPE}; boundary={BOUNDARY}"}
PART = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="track1"; filename="a.wav"\r\n'.encode()
)


def gzip_of_zeros(megabytes: int) -> bytes:
    """A gzip stream that expands to that many megabytes; compressed, about 5 MB per gigabyte."""
    block, checksum = bytes(10**6), 0
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(megabytes):
        checksum = zlib.crc32(block, checksum)
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    length = (megabytes * len(block)) % 2**32
    trailer = checksum.to_bytes(4, "little") + length.to_bytes(4, "little")
    return header + packed * megabytes + packer.flush() + trailer


def newlines(size: int) -> bytes:
    """A form whose preamble is that many bytes of empty lines."""
    return b"\r\n" * (size // 2) + PART


def part_headers(size: int) -> bytes:
    """A form whose first part has that many bytes of headers."""
    line = b"X: y\r\n"
    return PART + line * (size // len(line))


def folded_header(size: int) -> bytes:
    """A form whose first part has one folded header of that many bytes."""
    line = b" x\r\n"
    return PART + b"X: y\r\n" + line * (size // len(line))


def tiny_chunks(size: int) -> bytes:
    """A chunked body: an unterminated form with `size` bytes of content, each in its own chunk."""
    whole = PART + b"\r\n"
    head = f"{len(whole):x}\r\n".encode() + whole + b"\r\n"
    return head + b"1\r\nx\r\n" * size + b"0\r\n\r\n"


@dataclass(frozen=True)
class Attack:
    """One request, which is sent repeatedly.

    Attributes:
        paths: paths to which it is sent in turn.
    """

    paths: Sequence[str]
    body: bytes
    headers: dict[str, str]


def attacks() -> dict[str, Attack]:
    """Attacks by name; each body is small enough that the service reads it."""
    forms = ["/api/generate", "/api/check/track1"]
    packed = {**FORM, "Content-Encoding": "gzip"}
    return {
        COMPRESSED: Attack([*forms, "/nowhere"], gzip_of_zeros(1000), packed),
        "empty lines before the boundary": Attack(forms, newlines(60 * MB), FORM),
        "headers of a part": Attack(forms, part_headers(60 * MB), FORM),
        "a folded header": Attack(forms, folded_header(60 * MB), FORM),
        "parameters of a header": Attack(forms, PART[:-2] + b'; a="' * 800, FORM),
        "a long Content-Type": Attack(forms, PART, {"Content-Type": FORM_TYPE + ";" * 8000}),
    }


@dataclass
class ResponseTimes:
    """The seconds until each response.

    Attributes:
        health: for another client's requests to /health.
        attacks: status and seconds for each attack, including its upload.
    """

    health: list[float] = field(default_factory=list)
    attacks: list[tuple[int, float]] = field(default_factory=list)

    @property
    def statuses(self) -> set[int]:
        return {status for status, _ in self.attacks}


def run_attack(url: str, attack: Attack, clients: int, seconds: float) -> ResponseTimes:
    """Request /health every 20 ms while `clients` clients attack for `seconds` seconds."""
    times, over = ResponseTimes(), threading.Event()

    def send(number: int) -> None:
        while not over.is_set():
            path = attack.paths[number % len(attack.paths)]
            number += 1
            began = time.monotonic()
            response = requests.post(
                url + path, data=attack.body, headers=attack.headers, timeout=TIMEOUT_S
            )
            times.attacks.append((response.status_code, time.monotonic() - began))

    with ThreadPoolExecutor(clients) as pool, requests.Session() as session:
        sending = [pool.submit(send, number) for number in range(clients)]
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                began = time.monotonic()
                session.get(f"{url}/health", timeout=TIMEOUT_S).raise_for_status()
                times.health.append(time.monotonic() - began)
                time.sleep(0.02)
        finally:
            over.set()
        for each in sending:
            each.result()
    return times
