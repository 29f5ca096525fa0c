# TorchServe with the model, and the packages to pack archives.
FROM debian:bookworm-slim

# procps contains `kill`, with which TorchServe stops the workers of an unloaded version.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates openjdk-17-jre-headless procps python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /app musiclab

ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app

# Copied first, so that changes of the code do not reinstall the packages.
COPY requirements/model.txt requirements/encodec.txt requirements/uv.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --only-binary :all: -r requirements/model.txt

# pip's arguments for installing torch; by default, the build without CUDA from PyTorch's index.
ARG TORCH_SOURCE=
RUN if [ -n "$TORCH_SOURCE" ]; then \
        pip install --no-cache-dir --disable-pip-version-check $TORCH_SOURCE; \
    else \
        pip install --no-cache-dir --disable-pip-version-check \
            --no-deps --require-hashes --only-binary :all: -r requirements/uv.txt \
        && uv pip install --no-cache --python /opt/venv/bin/python --torch-backend=cpu torch==2.13.0 \
        && pip uninstall --yes uv; \
    fi

# Installs encodec without its dependency torchaudio, which is never used.
RUN pip install --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --no-build-isolation -r requirements/encodec.txt

# handlers is needed for packing. It is not installed, so that workers import it only from their archive.
COPY orchestrator orchestrator
COPY handlers handlers
COPY config.properties log4j2.xml metrics.yaml ./
COPY pyproject.toml hatch_build.py README.md LICENSE ./
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --editable . \
    && python -m compileall -q orchestrator \
    && install -d -o musiclab -g musiclab checkpoints model_store run

USER musiclab
EXPOSE 8080 8081 8082
CMD ["musiclab", "serve-model"]
