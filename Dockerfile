# The image of jobsvc: `docker build -t jobsvc .` What is in it and why: docs/decisions/0033-image.md

FROM docker.io/library/debian:trixie-slim AS runtime
# Python compiles what it imports: the last stage keeps that, and no other .pyc files.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc/* /usr/share/man/* /usr/lib/python3.*/test \
    && find /usr/lib /usr/share -name __pycache__ -prune -exec rm -rf {} + \
    && useradd --uid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin jobsvc

FROM runtime AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils python3-venv && python3 -m venv /opt/jobsvc
ENV PATH=/opt/jobsvc/bin:$PATH PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ONLY_BINARY=:all:
WORKDIR /src
COPY requirements.txt .
# Both secrets are optional: the settings of pip for an index of your own, and the certificate of a proxy.
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt pip install -r requirements.txt
COPY . .
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt \
    pip wheel -q --no-deps -w /dist . && pip install --no-deps --no-index /dist/*.whl
WORKDIR /opt/jobsvc/lib/python3.13/site-packages
# rich needs three of these for what jobsvc does not use. mako imports Pygments if it is there, which takes time.
RUN pip uninstall -y markdown-it-py mdurl pip pygments \
    && find sqlalchemy -name '*.so' -exec strip --strip-unneeded {} + \
    && rm -rf tests ./*/tests ./*/testing pydantic/v1 sqlalchemy/dialects/mssql sqlalchemy/dialects/mysql \
        sqlalchemy/dialects/oracle \
    && find . -name __pycache__ -prune -exec rm -rf {} +

FROM runtime
ARG VERSION= REVISION=
LABEL org.opencontainers.image.title="jobsvc" \
    org.opencontainers.image.description="A job queue behind HTTP: stored in Postgres, run on RQ" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
ENV PATH=/opt/jobsvc/bin:$PATH HOST=0.0.0.0
COPY --from=build /opt/jobsvc /opt/jobsvc
# Modules of handlers go here.
WORKDIR /app
# Writes the .pyc files of what jobsvc imports, since its user can't. The first and the last one are imported late.
RUN ["python3", "-c", "import encodings.idna, importlib, jobsvc, pkgutil, psycopg2.extras; [importlib.import_module(one.name) for one in pkgutil.walk_packages(jobsvc.__path__, 'jobsvc.') if not one.name.endswith(('__main__', 'rqsettings', 'gunicorn_conf')) and 'devservices' not in one.name]"]
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s CMD ["jobsvc", "health"]
ENTRYPOINT ["jobsvc"]
CMD ["api"]
