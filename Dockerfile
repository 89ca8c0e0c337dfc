# One image with both programs, so that they are of one version: it serves the API, or does what
# `firstcome-worker …` as its command says. Needs BuildKit (Docker 23 or newer, podman, buildah).

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
# The caches outlive a build, so only the workspace's own crates are compiled again. These always
# are, hence the touch: Cargo goes by the files' times, and another checkout's may be older.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    find api shared workers -name '*.rs' -exec touch {} + \
    && CARGO_PROFILE_RELEASE_DEBUG=none cargo build --locked --release --package firstcome-api --package firstcome-workers --bins \
    && install -D -t /out target/release/firstcome-api target/release/firstcome-worker

# The programs need libc and libgcc only; a shell is there for whoever has to look inside.
FROM debian:trixie-slim
LABEL org.opencontainers.image.title="Firstcome" \
      org.opencontainers.image.description="The backend for first-come sales: API and workers" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out/ /usr/local/bin/
# Whichever program runs is there where the health check asks.
ENV API_ADDR=0.0.0.0:8080 \
    WORKER_ADDR=0.0.0.0:9091
EXPOSE 8080 9091
HEALTHCHECK --interval=5s --timeout=6s --start-period=30s --retries=3 CMD ["firstcome-worker", "health"]
# A number, since an orchestrator that refuses root cannot look up a name.
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["firstcome-api", "serve"]
