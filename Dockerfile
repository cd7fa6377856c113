# The image of replog: two static binaries and an empty directory for data, nothing else.
#
# Only instructions that the classic builder of Docker 20.10 knows are used here, so that the
# image can be built with and without BuildKit.
#
# Where no image registry can be reached, tools/make-base-image makes the base image of the build
# on this machine, under the same name.
ARG BASE_IMAGE=rust:1.95-slim-bookworm

FROM ${BASE_IMAGE} AS builder
WORKDIR /build

# The final image has no C library, so the binaries must bring it with them. The target is named,
# although it is the builder's own, because cargo then keeps RUSTFLAGS away from build scripts and
# procedural macros, which cannot be linked statically. It is asked of rustc, so that the same file
# builds on x86-64 and on ARM; cargo leaves the binaries in a directory of that name.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# Dependencies first, with an empty program in place of ours: as long as Cargo.toml and Cargo.lock
# stay as they are, a change of the sources builds again only what is ours. The empty program is
# removed at once: COPY keeps the modification times of the sources, which are mostly older than
# this layer, and cargo would take the empty program for the finished one.
COPY Cargo.toml Cargo.lock ./
COPY tools/sim/Cargo.toml tools/sim/
RUN set -eu; \
    target="$(rustc -vV | sed -n 's/^host: //p')"; \
    mkdir -p src/bin; \
    touch src/lib.rs; \
    mkdir tools/sim/src; \
    touch tools/sim/src/lib.rs; \
    echo 'fn main() {}' > tools/sim/src/main.rs; \
    echo 'fn main() {}' > src/bin/replog.rs; \
    echo 'fn main() {}' > src/bin/replog-cli.rs; \
    cargo build --release --locked --target "$target" --bin replog --bin replog-cli; \
    cargo clean --release --target "$target" --package replog; \
    rm -r src

COPY src src
RUN set -eu; \
    target="$(rustc -vV | sed -n 's/^host: //p')"; \
    cargo build --release --locked --target "$target" --bin replog --bin replog-cli; \
    mkdir -p /image/bin /image/root/data; \
    cp "target/$target/release/replog" "target/$target/release/replog-cli" /image/bin/

FROM scratch

# The binaries belong to root: the user they run as cannot replace them. They lie where PATH looks
# by default, so that `docker-compose exec master replog-cli status` works.
COPY --from=builder /image/bin/ /usr/local/bin/

# A new named volume mounted at /data takes over the owner of this directory. The directory is
# copied as part of its parent, because some builders give a directory that COPY itself has to
# create to root.
COPY --from=builder --chown=10001:10001 /image/root/ /

# Numeric, because there is no /etc/passwd to look a name up in.
USER 10001:10001
WORKDIR /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/replog"]
CMD ["--help"]
