# Scrapes the orchestrator and TorchServe. The configuration and the alerts are mounted.
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends curl prometheus \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home musiclab \
    && install -d -o musiclab -g musiclab /prometheus

WORKDIR /prometheus
USER musiclab
EXPOSE 9090
CMD ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", \
    "--storage.tsdb.path=/prometheus", "--storage.tsdb.retention.time=30d"]
