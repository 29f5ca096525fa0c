# The page, and the way in to the API.
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends curl nginx \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home musiclab

COPY deploy/nginx.sh /usr/local/bin/serve
COPY deploy/nginx.conf /etc/nginx/nginx.conf
COPY deploy/nginx-api.conf /etc/nginx/api.conf
COPY frontend /usr/share/musiclab

USER musiclab
EXPOSE 3000 8001
CMD ["sh", "/usr/local/bin/serve"]
