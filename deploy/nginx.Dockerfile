# The page, and the reverse proxy of the API.
FROM debian:bookworm-slim AS page

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv

# Debian's own Node.js is too old for Vite.
ENV PATH=/opt/venv/bin:$PATH
COPY requirements/node.txt /tmp/
RUN pip install --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --only-binary :all: -r /tmp/node.txt

WORKDIR /page

# Copied first, so that changes of the page do not reinstall the packages.
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund --no-update-notifier --loglevel=error

# URL of the API, if its origin differs from that of the page.
ARG VITE_API_URL=
COPY frontend ./
RUN npm run build

FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends curl libnginx-mod-http-brotli-static nginx \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home musiclab

COPY deploy/nginx.sh /usr/local/bin/serve
COPY deploy/nginx.conf /etc/nginx/nginx.conf
COPY deploy/nginx-api.conf /etc/nginx/api.conf
COPY --from=page /page/dist /usr/share/musiclab

USER musiclab
EXPOSE 3000 8001
CMD ["sh", "/usr/local/bin/serve"]
