# Images that train and serve, for the processor (--target cpu) and for NVIDIA GPUs (--target gpu):
#   docker build --target gpu -t kerasseg .
#   docker run --rm --gpus all --shm-size 2g --user "$(id -u):$(id -g)" -v "$PWD:/work" kerasseg \
#     train --config brats20_3d data.root=FOLDER
#   docker run --rm --gpus all -p 127.0.0.1:8500-8501:8500-8501 -v "$PWD/models:/models:ro" kerasseg \
#     serve /models --host 0.0.0.0
# What is read and written lies in the mounted folder. Nobody who asks the server is asked who they
# are (docs/serving_local.md): publish its ports to others only behind a proxy that asks.
FROM python:3.12-slim AS wheel
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim AS base
RUN useradd --uid 1000 --create-home kerasseg && install --directory --owner=kerasseg /work
WORKDIR /work
EXPOSE 8500 8501
ENTRYPOINT ["kerasseg"]
CMD ["--help"]

# The wheel is named by its path: an index might have another package of the same name.
FROM base AS gpu
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    --mount=from=wheel,source=/source/requirements.lock,target=/requirements.lock \
    pip install --no-cache-dir --constraint /requirements.lock "$(echo /wheels/*.whl)[serving,gpu]"
USER 1000:1000

FROM base AS cpu
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    --mount=from=wheel,source=/source/requirements.lock,target=/requirements.lock \
    pip install --no-cache-dir --constraint /requirements.lock "$(echo /wheels/*.whl)[serving]"
USER 1000:1000
