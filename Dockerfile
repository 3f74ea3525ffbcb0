# The Discord proxy: docker build --tag discord-proxy .
FROM python:3.13-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY asgi_ratelimit asgi_ratelimit
RUN pip install --no-cache-dir ".[cli,redis]" && useradd --system discord-proxy
USER discord-proxy
ENV DISCORD_PROXY_HOST=0.0.0.0
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('DISCORD_PROXY_PORT', '8080') + '/health')"]
CMD ["asgi-ratelimit", "discord-proxy"]
