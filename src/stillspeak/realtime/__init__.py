"""A face that speaks in real time: buffers, clock and sinks."""
