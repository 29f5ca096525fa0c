"""Determines for which files seeking finds the same audio as decoding from the beginning."""

import re
from pathlib import Path

# Window start in seconds above which ffmpeg seeks. Below it, decoding from the beginning is nearly
# as fast. Median times for four-minute tracks of all formats with Debian's ffmpeg 5.1, and in
# parentheses with the wheel's 9.0, including 65 ms (15 ms) for starting ffmpeg:
#
#     window at         10 s       30 s        60 s       120 s        200 s
#     from beginning    90 (50)   100 (65)    125 (95)    170 (165)    225 (215) ms
#     with seeking      85 (40)    85 (40)     85 (40)     85 (45)      85 (40) ms
#
# Seeking was accurate to 0.1 ms compared with a full decode, up to 46 minutes into a one-hour
# track. This was measured for MP3 (CBR, and VBR with and without Xing header; ffmpeg walks through
# every frame up to the window), M4A (AAC and ALAC; with and without edit list; fragmented), ADTS,
# WAV, FLAC and Ogg (Vorbis, Opus, FLAC). In a damaged track seeking is more accurate: it finds the
# same position as in the undamaged track if frames have timestamps, as in M4A, FLAC and Ogg.
# Decoding from the beginning counts only decodable audio, and was off by 23 ms for each lost AAC
# frame, and by 15 s for 20 wrong bytes in an Ogg file.
SEEK_AFTER_S = 10.0

# The timestamps of a file start with its first stream, which need not be audio, and restart with
# each chained stream. Seeking is therefore limited to files with one stream. Each entry maps the
# start of a file format to the marker of a stream in it: the first page of an Ogg stream, FLAC's
# marker with the header of the first block, the handler of an MP4 audio or video track. The
# timestamps of other formats do not restart at chained streams.
STREAM_MARKS = {
    rb"OggS": rb"OggS\0[\2\3\6\7]",
    rb"fLaC": rb"fLaC[\0\x80]\0\0\x22",
    rb".{4}(?:ftyp|moov|mdat|wide|free|skip|pnot)": rb"hdlr.{8}(?:soun|vide)",
}
LONGEST_MARK = 16

# A decoder that starts mid-stream needs some frames to settle: the correlation of the first 0.25 s
# of a VBR MP3 with a full decode is only 0.4, and ffmpeg 9.0 skips the 23 ms of AAC priming there.
# Decoding therefore starts this many seconds earlier, and ffmpeg drops the audio before the window
# by timestamp.
PREROLL_S = 2.0

SCAN_CHUNK_BYTES = 2**20  # read at once


def has_one_stream(source: Path) -> bool:
    """Returns whether a file has one stream, so that seeking is accurate. Takes 2 ms for 5 MB."""
    with source.open("rb") as file:
        tail = file.read(LONGEST_MARK)
        marks = [mark for kind, mark in STREAM_MARKS.items() if re.match(kind, tail, re.DOTALL)]
        if not marks:
            return True
        mark, found = re.compile(marks[0], re.DOTALL), 0
        while chunk := file.read(SCAN_CHUNK_BYTES):
            searched, end = tail + chunk, 0
            for match in mark.finditer(searched):
                found, end = found + 1, match.end()
            tail = searched[max(end, len(searched) - LONGEST_MARK + 1) :]
    return found == 1
