# A worker, which runs tasks in containers of the Engine whose socket it is given: docs/operations.md, "Containers".
#
#     docker build --file docker/worker.Dockerfile --tag fleetest-worker .
#
# Wheels in docker/wheels/ are all that is installed when there are any; otherwise packages come from the index.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY . .
RUN python3 -m venv --without-pip /opt/fleetest \
    && if [ -d docker/wheels ]; then set -- --no-index --find-links docker/wheels 'fleetest[worker]'; \
        else set -- '.[worker]'; fi \
    && python3 -m pip --python /opt/fleetest install --no-cache-dir --disable-pip-version-check "$@" \
    # Only compilers and type checkers read these, and nothing is highlighted here.
    && find /opt/fleetest -type f \( -name '*.py[ix]' -o -name '*.pxd' -o -name '*.[ch]' -o -path '*/pygments/lexers/*.pyc' \) -delete

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Fleetest worker" \
    org.opencontainers.image.description="Runs the tasks of a Fleetest cluster" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 fleetest \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/fleetest --create-home --shell /usr/sbin/nologin fleetest
COPY --from=build /opt/fleetest /opt/fleetest
ENV PATH=/opt/fleetest/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    FLEETEST_DATA_DIR=/var/lib/fleetest \
    # Tasks do not run beside the worker itself, within reach of the Engine's socket.
    FLEETEST_EXECUTORS=docker
USER 10001:10001
WORKDIR /var/lib/fleetest
VOLUME /var/lib/fleetest
# Whether it reaches a master, which is what a worker lives by.
HEALTHCHECK --interval=10s --timeout=15s --start-period=30s CMD ["fleetest", "health"]
# The first SIGTERM lets it finish what it runs: give `docker stop` the time.
STOPSIGNAL SIGTERM
ENTRYPOINT ["fleetest"]
CMD ["worker"]
