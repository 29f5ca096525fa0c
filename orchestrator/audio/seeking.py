"""When seeking in a file finds the same audio as decoding it from its beginning."""

import re
from pathlib import Path

# ffmpeg seeks to windows that start later than this; up to here decoding from the beginning is
# nearly as quick. Medians of the kinds of track, of four minutes, with Debian's 5.1 (the wheel's
# 9.0), whose mere start takes 65 ms (15 ms):
#
#     window at     10 s        30 s        60 s        120 s       200 s
#     from start    90 (50)    100 (65)    125 (95)    170 (165)   225 (215) ms
#     sought        85 (40)     85 (40)     85 (40)     85 (45)     85 (40) ms
#
# What is sought was within 0.1 ms of a full decode, up to 46 minutes into an hour: MP3 (CBR, and
# VBR with and without Xing header: ffmpeg walks through every frame up to there), M4A (AAC and
# ALAC; with and without edit list; in fragments), ADTS, WAV, FLAC and Ogg (Vorbis, Opus, FLAC). In
# a damaged track it is the better of the two: exactly where the undamaged one has it if frames
# tell their time, as in M4A, FLAC and Ogg. Decoding from the beginning counts only what can be
# decoded, and was off by 23 ms for each lost frame of AAC, and by 15 s for 20 wrong bytes in Ogg.
SEEK_AFTER_S = 10.0

# A file's times begin with its first stream, which need not be the audio, and again with each that
# is chained to it. So only files with one stream are sought in. How a kind of file begins, and what
# begins each stream in it: Ogg's first page of one, FLAC's marker with the head of a first block,
# the handler of an MP4 track of sound or video. Other kinds count on, whatever is chained.
STREAM_MARKS = {
    rb"OggS": rb"OggS\0[\2\3\6\7]",
    rb"fLaC": rb"fLaC[\0\x80]\0\0\x22",
    rb".{4}(?:ftyp|moov|mdat|wide|free|skip|pnot)": rb"hdlr.{8}(?:soun|vide)",
}
LONGEST_MARK = 16

# A decoder that starts in mid-stream needs frames to settle: the first 0.25 s of a VBR MP3 agree
# with a full decode by a correlation of 0.4 only, and 9.0 skips the 23 ms of AAC's priming there.
# So it starts this much earlier, and ffmpeg drops what comes before the window by timestamp.
PREROLL_S = 2.0

SCANNED = 2**20  # bytes that are searched at once


def has_one_stream(source: Path) -> bool:
    """Whether seeking finds the same as decoding from the beginning. Takes 2 ms for 5 MB."""
    with source.open("rb") as file:
        tail = file.read(LONGEST_MARK)
        marks = [mark for kind, mark in STREAM_MARKS.items() if re.match(kind, tail, re.DOTALL)]
        if not marks:
            return True
        mark, found = re.compile(marks[0], re.DOTALL), 0
        while chunk := file.read(SCANNED):
            searched, end = tail + chunk, 0
            for match in mark.finditer(searched):
                found, end = found + 1, match.end()
            tail = searched[max(end, len(searched) - LONGEST_MARK + 1) :]
    return found == 1
