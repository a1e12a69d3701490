# One image for web and worker; compose.yaml says which it is.
FROM python:3.11-slim

RUN useradd --create-home --uid 10001 weft
WORKDIR /srv/weft
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY wsgi.py .
COPY app app
COPY worker worker
COPY migrations migrations
# Handed out to machines that join, and not run here.
COPY agent agent
COPY requirements-model.txt .
RUN install -d -o weft -g weft /var/lib/weft

USER weft
ENV WEFT_DATA_DIR=/var/lib/weft WEFT_HOST=0.0.0.0 PYTHONUNBUFFERED=1
VOLUME /var/lib/weft
EXPOSE 8000
CMD ["gunicorn", "--config", "app/local/gunicorn_conf.py", "wsgi:app"]
