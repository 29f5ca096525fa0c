# The API with its worker: no torch, no Java. ffmpeg comes as a wheel.
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /app musiclab

ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app

# What is installed depends on pyproject.toml alone, so a change of the code installs nothing.
COPY pyproject.toml ./
RUN mkdir orchestrator && touch orchestrator/__init__.py README.md \
    && pip install --no-cache-dir --disable-pip-version-check --editable .

COPY orchestrator orchestrator
RUN python -m compileall -q orchestrator && install -d -o musiclab -g musiclab cache run

USER musiclab
EXPOSE 8001
CMD ["musiclab", "orchestrator"]
