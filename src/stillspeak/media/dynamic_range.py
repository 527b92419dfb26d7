"""Frames of high dynamic range (PQ, HLG) become those of standard range, BT.709."""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    import av.filter

CURVES = {16: "PQ", 18: "HLG"}
"""Names of the transfer characteristics of high dynamic range, by their numbers in ITU-T H.273."""

_MAPPING = (
    "out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709:out_range=tv:intent=perceptual"
)
_KEPT = 2  # a mapping takes seconds to set up
_graphs: OrderedDict[tuple[object, ...], av.filter.Graph] = OrderedDict()
_lock = Lock()


def standard_range(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame itself, or in 8 bits of BT.709 if it has high dynamic range.

    FFmpeg's perceptual mapping: highlights are compressed, not cut off.
    """
    if frame.color_trc not in CURVES:
        return frame
    import av

    key = (
        *(frame.width, frame.height, frame.format.name),
        *(frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range),
    )
    with _lock:
        graph = _graphs.pop(key, None) or _graph(frame)
        _graphs[key] = graph
        while len(_graphs) > _KEPT:
            _graphs.popitem(last=False)
        graph.push(frame)
        mapped = graph.pull()
        assert isinstance(mapped, av.VideoFrame)
    return mapped


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    import av.filter

    graph = av.filter.Graph()
    parts = [
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or Fraction(1, 90_000),
        ),
        graph.add("scale", _MAPPING),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*parts).configure()
    return graph
