"""Generators of valid and invalid forms with tracks."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.signals import RATE, encoded, noise
from tests.support.tracks import make_track

Part = tuple[str, tuple[str | None, bytes]]


def drawn(strategy: st.SearchStrategy[Any], count: int, seed_number: int) -> list[Any]:
    """Up to `count` distinct values of a strategy; fewer if the strategy is exhausted."""
    values: list[Any] = []

    @seed(seed_number)
    @hypothesis_settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(value: Any) -> None:
        values.append(value)

    keep()
    return values


def mostly(usual: Any, other: st.SearchStrategy[Any], parts: int) -> st.SearchStrategy[Any]:
    """The usual value with probability parts / (parts + 1), otherwise a value of `other`."""
    return st.integers(0, parts).flatmap(lambda number: other if number == 0 else st.just(usual))


def forms(tracks: dict[str, bytes], version: str) -> st.SearchStrategy[list[Part]]:
    """The parts of a form; most forms are valid.

    Most tracks are identical, so that most jobs reuse the result of an earlier one.
    """
    track = files(tracks)

    @st.composite
    def form(draw: st.DrawFn) -> list[Part]:
        parts: list[Part] = [("track1", draw(track)), ("track2", draw(track))]
        texts: dict[str, str] = draw(mostly({}, times(), 2))
        if draw(st.integers(0, 9)) == 0:
            texts = texts | {"model_version": draw(st.sampled_from([version, "1.0"]) | st.text())}
        parts += [(name, (None, text.encode(errors="replace"))) for name, text in texts.items()]
        damage = draw(st.integers(0, 40))
        if damage == 0:
            parts.pop(0)
        elif damage == 1:
            parts.append(draw(st.sampled_from(parts)))
        elif damage == 2:
            parts.append((draw(st.text(min_size=1)), (None, b"1")))
        return parts

    return form()


def files(tracks: dict[str, bytes]) -> st.SearchStrategy[tuple[str | None, bytes]]:
    """File names and contents; most are valid tracks."""
    good = mostly((".wav", tracks[".wav"]), st.sampled_from(list(tracks.items())), 6)
    broken = st.sampled_from(
        [
            b"",
            b"no music at all\n" * 50,
            bytes(1000),
            encoded(noise(RATE, 1)[:0]),
            *(content[: len(content) // 3] for content in tracks.values()),
            *(content[len(content) // 3 :] for content in tracks.values()),
        ]
    )
    endings = [f"x{end}" for end in tracks]
    names = st.sampled_from([*endings, "x.WAV", "x", ".mp3", "x.mp3.exe", "é.ogg", "a/b.wav", None])

    @st.composite
    def file(draw: st.DrawFn) -> tuple[str | None, bytes]:
        extension, content = draw(good)
        name: str | None = f"x{extension}"
        if draw(st.integers(0, 9)) == 0:
            name = draw(names)
        if draw(st.integers(0, 9)) == 0:
            content = draw(broken | st.binary(max_size=2000))
        return name, content

    return file()


def times() -> st.SearchStrategy[dict[str, str]]:
    """The window fields: defaults, starts past the end of the track, and invalid values."""
    same = st.sampled_from([{"start_time": "0"}, {"start_time_1": "0", "end_time_1": "16.0"}])
    past = st.sampled_from([{"start_time": "7"}, {"start_time_2": "1e9", "end_time": "3"}])
    fields = [f"{edge}_time{track}" for edge in ("start", "end") for track in ("", "_1", "_2")]
    numbers = st.floats().map(str) | st.sampled_from(["", " 1", "1_0", "-0", "1e999", "x" * 300])
    wild = st.dictionaries(st.sampled_from(fields), numbers | st.text(max_size=9), max_size=3)
    return same | past | wild


def make_tracks(folder: Path) -> dict[str, bytes]:
    """Tracks of a third of a second in every format, by extension."""
    kinds = ("stereo.wav", "48_khz.flac", "vorbis.ogg", "vbr.mp3", "edit_list.m4a")
    sound = noise(RATE // 3, 1)
    return {Path(kind).suffix: make_track(folder, kind, sound).read_bytes() for kind in kinds}
