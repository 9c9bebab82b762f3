# A master. Build it from the repository's root:
#
#     docker build --file docker/master.Dockerfile --tag fleetest-master .
#
# Wheels in docker/wheels/ are all that is installed when there are any; otherwise packages come from the index.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY . .
RUN python3 -m venv --without-pip /opt/fleetest \
    && if [ -d docker/wheels ]; then set -- --no-index --find-links docker/wheels 'fleetest[master]'; \
        else set -- '.[master]'; fi \
    && python3 -m pip --python /opt/fleetest install --no-cache-dir --disable-pip-version-check "$@" \
    # Only compilers and type checkers read these, and nothing is highlighted here.
    && find /opt/fleetest -type f \( -name '*.py[ix]' -o -name '*.pxd' -o -name '*.[ch]' -o -path '*/pygments/lexers/*.pyc' \) -delete

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Fleetest master" \
    org.opencontainers.image.description="Serves clients and workers of a Fleetest cluster" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 fleetest \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/fleetest --create-home --shell /usr/sbin/nologin fleetest \
    # A volume that is mounted there belongs to the user too.
    && install --directory --owner fleetest --group fleetest /var/lib/fleetest/blobs
COPY --from=build /opt/fleetest /opt/fleetest
ENV PATH=/opt/fleetest/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    FLEETEST_DATA_DIR=/var/lib/fleetest \
    FLEETEST_LISTEN_ADDRESS=0.0.0.0:50051 \
    FLEETEST_MASTER=127.0.0.1:50051
USER 10001:10001
WORKDIR /var/lib/fleetest
VOLUME /var/lib/fleetest
EXPOSE 50051 50052
HEALTHCHECK --interval=10s --timeout=15s --start-period=30s CMD ["fleetest", "health"]
ENTRYPOINT ["fleetest"]
CMD ["master"]
