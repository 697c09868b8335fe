# Builds the flatrender programs and an image that can be any of them: serve, worker, node, migrate.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libclang-dev clang && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p flatrender-api -p flatrender-renderer
# On its own: built together with the server it would link what the server needs.
RUN cargo build --locked --release -p flatrender-activities

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates ffmpeg && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/flatrender flatrender
COPY --from=build /src/target/release/flatrender /src/target/release/flatrender-node \
    /src/target/release/flatrender-aerender /usr/local/bin/
RUN mkdir -p /var/lib/flatrender/storage /var/lib/flatrender/node && chown -R flatrender /var/lib/flatrender
USER flatrender
ENTRYPOINT ["flatrender"]
CMD ["serve", "--listen", "0.0.0.0:8787"]
