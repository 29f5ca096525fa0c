# The API with its worker, without torch and Java. ffmpeg is installed as a wheel.
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /app musiclab

ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app

# Copied first, so that changes of the code do not reinstall the packages.
COPY requirements/orchestrator.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --only-binary :all: -r requirements/orchestrator.txt

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY orchestrator orchestrator
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --editable . \
    && python -m compileall -q orchestrator \
    && install -d -o musiclab -g musiclab cache run

USER musiclab
EXPOSE 8001
CMD ["musiclab", "orchestrator"]
