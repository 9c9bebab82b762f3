# An image to run tasks in: Python, pytest and git, for suites that name no image of their own (FLEETEST_DEFAULT_IMAGE).
#
#     docker build --file docker/runner.Dockerfile --tag fleetest-runner .
#
# Wheels in docker/wheels/ are all that is installed when there are any; otherwise packages come from the index.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY . .
RUN if [ -d docker/wheels ]; then set -- --no-index --find-links docker/wheels; fi \
    && python3 -m pip install --target /opt/runner --no-cache-dir --disable-pip-version-check "$@" \
        pytest pytest-timeout

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Fleetest runner" \
    org.opencontainers.image.description="Where tasks of a Fleetest cluster run" \
    org.opencontainers.image.licenses="Apache-2.0"
# Projects that take their version from git need it.
RUN command -v git > /dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/runner /opt/runner
# Part of the system's own packages, so that virtual environments that a task's `setup` makes see them too.
RUN echo /opt/runner > "$(python3 -c 'import site; print(site.getsitepackages()[0])')/runner.pth" \
    && groupadd --gid 1000 runner \
    && useradd --uid 1000 --gid 1000 --home-dir /home/runner --create-home --shell /bin/sh runner
ENV PATH=/opt/runner/bin:${PATH} \
    PYTHONUNBUFFERED=1
USER 1000:1000
HEALTHCHECK NONE
CMD ["python3"]
