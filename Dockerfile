# The gateway (default), the gateway with the CUDA build of ONNX Runtime, and the trainer; one constraints file for all three.
#   docker build --target gateway     -t understudy .          docker run -p 127.0.0.1:8000:8000 -e UNDERSTUDY_OPEN=true understudy
#   docker build --target gateway-gpu -t understudy:gpu .      docker run -p 127.0.0.1:8000:8000 -e UNDERSTUDY_OPEN=true --gpus all understudy:gpu
#   docker build --target trainer     -t understudy:trainer .  docker run --user "$(id -u)" -e HOME=/tmp -v "$PWD:/work" understudy:trainer train CONFIG.yaml
# A gateway that others can reach takes keys: -p 8000:8000 -v "$PWD/keys.toml:/run/keys.toml:ro" -e UNDERSTUDY_KEYS_FILE=/run/keys.toml

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/understudy/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
RUN useradd --uid 1000 --create-home understudy
WORKDIR /srv/understudy

FROM base AS source
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY clients/python clients/python
COPY contract contract
COPY service service
COPY training training
RUN python3 -m venv /opt/understudy

FROM source AS trainer
# https://download.pytorch.org/whl/cpu for a build without CUDA
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
RUN pip install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)" \
 && pip install --constraint constraints.txt ./clients/python '.[cpu,train]'
WORKDIR /work
RUN chown understudy /work
USER 1000
HEALTHCHECK NONE
ENTRYPOINT ["understudy"]
CMD ["train", "--help"]

FROM source AS installed-gpu
RUN pip install --constraint constraints.txt ./clients/python '.[gpu]'

FROM source AS installed-cpu
RUN pip install --constraint constraints.txt ./clients/python '.[cpu]'

FROM base AS serving
COPY model_repo model_repo
# A volume that is mounted here takes this owner: UNDERSTUDY_SPOOL=/var/spool/understudy for large images, as in deploy/compose.yaml.
RUN install --directory --owner=understudy /var/spool/understudy
# Compiled code goes where it can be written even if the container's own files cannot: run with --read-only --tmpfs /tmp.
ENV UNDERSTUDY_MODEL_REPO=/srv/understudy/model_repo \
    UNDERSTUDY_HOST=0.0.0.0 \
    NUMBA_CACHE_DIR=/tmp/understudy-numba
USER 1000
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["understudy"]
CMD ["serve"]

FROM serving AS gateway-gpu
# Without a GPU it says so and ends, instead of being slow; few calls at once, so that each is large.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    UNDERSTUDY_DEVICE=cuda \
    UNDERSTUDY_WORKERS=2
COPY --from=installed-gpu /opt/understudy /opt/understudy

FROM serving AS gateway
COPY --from=installed-cpu /opt/understudy /opt/understudy
