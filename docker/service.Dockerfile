# The service without training: no torch, an ordinary user, the collection mounted at /collection.
#
#   docker build --file docker/service.Dockerfile --tag labelspace-service .
#   docker run --publish 127.0.0.1:8000:8000 --volume "$PWD/demo/collection:/collection" labelspace-service
#
# The collection has to be writable for user 10001: the log of changes lies in it.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}

ENV PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/labelspace/bin:$PATH
COPY pyproject.toml constraints.txt README.md LICENSE /build/
COPY cli /build/cli
COPY index /build/index
COPY service /build/service
COPY training /build/training
RUN python3 -m venv /opt/labelspace \
 && pip install --no-cache-dir --disable-pip-version-check --constraint /build/constraints.txt '/build[cpu,serve,postgres]' \
 && rm -rf /build \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin labelspace
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["labelspace"]
CMD ["serve", "/collection", "--host", "0.0.0.0", "--port", "8000"]
