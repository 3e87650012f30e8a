# One image for API, worker, migration and mail sink: `muster COMMAND`. No secret is inside, settings come as variables.

FROM python:3.13-slim AS packages
COPY requirements.production.lock /
RUN python -m venv /venv && \
    /venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /requirements.production.lock

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent muster && install -d -o muster /data
COPY --from=packages /venv /venv
WORKDIR /srv/muster
COPY app app
COPY campaigns campaigns
COPY channels channels
COPY db db
COPY graphql graphql
COPY profiles profiles
COPY segments segments
COPY workers workers
ENV PATH=/venv/bin:$PATH PYTHONPATH=/srv/muster PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m compileall -q .
USER muster
ENTRYPOINT ["python", "-m", "app.cli"]
CMD ["api"]
