# stillspeak serve in a container, on a CPU:
#
#   docker build -t stillspeak .
#   docker run --rm -p 127.0.0.1:8000:8000 stillspeak
#
# PyTorch comes with CUDA and several gigabytes unless the index of its CPU builds is named:
# --build-arg TORCH_INDEX=URL, see "Get started" on PyTorch's own pages.
#
# The server has neither accounts nor encryption: publish the port on this machine alone, as above,
# or put a proxy with both in front of it and name the proxy's host in allow_hosts (docs/web.md).

FROM python:3.11-slim-bookworm AS build

WORKDIR /source
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG TORCH_INDEX=
COPY constraints.txt ./
# The large part first, so that a change of the source does not fetch it again.
RUN python -m venv /opt/stillspeak \
    && /opt/stillspeak/bin/pip install --constraint constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/stillspeak/bin/pip install --constraint constraints.txt '.[serve]'

FROM python:3.11-slim-bookworm

# What MediaPipe and OpenCV load, as in the README.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgles2 libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 stillspeak
COPY --from=build /opt/stillspeak /opt/stillspeak
ENV PATH=/opt/stillspeak/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib
USER stillspeak
WORKDIR /home/stillspeak
EXPOSE 8000
# The first answer waits for the model to be loaded.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/api/health', timeout=4)"]
STOPSIGNAL SIGINT
ENTRYPOINT ["stillspeak", "serve", "--host", "0.0.0.0", "--port", "8000"]
