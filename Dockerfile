# The gate in an image of its own: built in one stage, run as nobody in particular in another.
#
# Base images are named by full versions; pin them by digest where you build for production (docker buildx imagetools inspect).
# Nothing comes from the system at run time: librdkafka, OpenSSL, zlib, zstd and SQLite are built from crates and linked in.

FROM rust:1.95.0-slim-bookworm AS build
# build-essential: librdkafka and SQLite. perl: OpenSSL's configure.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
# The image has this toolchain; rust-toolchain.toml would fetch rustfmt and clippy too.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin ordergate \
    && cp target/release/ordergate /usr/local/bin/ordergate

FROM debian:bookworm-20251229-slim
# curl: the health check. ca-certificates: brokers with public certificates.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 ordergate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/ordergate --shell /usr/sbin/nologin ordergate \
    && install -d -o ordergate -g ordergate -m 0750 /var/lib/ordergate
COPY --from=build /usr/local/bin/ordergate /usr/local/bin/ordergate
COPY LICENSE /usr/share/doc/ordergate/LICENSE
USER 10001:10001
WORKDIR /var/lib/ordergate
VOLUME /var/lib/ordergate
ENV ORDERGATE__DATA_DIR=/var/lib/ordergate
STOPSIGNAL SIGTERM
ENTRYPOINT ["ordergate"]
CMD ["run"]
