# An image to run tasks in, for suites that name no image of their own (FLEETEST_DEFAULT_IMAGE): Python, git, and what
# RUNNERS names.
#
#     docker build --file docker/runner.Dockerfile --tag fleetest-runner .
#     docker build --file docker/runner.Dockerfile --build-arg RUNNERS="pytest checks" --tag fleetest-runner:small .
#
#     pytest        pytest, which all others but commands need, too
#     checks        REST and GraphQL checks
#     performance   Locust
#     playwright    pytest-playwright, and the browser that BROWSER names: it takes more room than all else together
#
# Wheels in docker/wheels/ are all that is installed of Python when there are any; otherwise packages come from the index.
ARG BASE_IMAGE=python:3.12-slim-bookworm
ARG RUNNERS="pytest checks performance playwright"
# Debian's package; where it is empty, tests have to bring their browser.
ARG BROWSER=chromium

FROM ${BASE_IMAGE} AS build
ARG RUNNERS
WORKDIR /build
COPY . .
RUN set -eu; fleetest=.; set --; \
    if [ -d docker/wheels ]; then fleetest=fleetest; set -- --no-index --find-links docker/wheels; fi; \
    for runner in ${RUNNERS}; do \
        case ${runner} in \
            pytest) set -- "$@" pytest pytest-timeout ;; \
            checks) set -- "$@" "${fleetest}[checks]" ;; \
            performance) set -- "$@" "${fleetest}[performance]" ;; \
            playwright) set -- "$@" pytest-playwright ;; \
            *) echo "RUNNERS: there is no ${runner}; choose of pytest, checks, performance and playwright" >&2; exit 1 ;; \
        esac; \
    done; \
    python3 -m pip install --target /opt/runner --no-cache-dir --disable-pip-version-check "$@"

FROM ${BASE_IMAGE}
ARG RUNNERS
ARG BROWSER
LABEL org.opencontainers.image.title="Fleetest runner" \
    org.opencontainers.image.description="Where tasks of a Fleetest cluster run" \
    org.opencontainers.image.licenses="Apache-2.0"
# Projects that take their version from git need it.
RUN set --; command -v git > /dev/null || set -- git; \
    case " ${RUNNERS} " in *" playwright "*) set -- "$@" ${BROWSER} ;; esac; \
    [ $# -eq 0 ] || { apt-get update && apt-get install --yes --no-install-recommends "$@" && rm -rf /var/lib/apt/lists/*; }
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
