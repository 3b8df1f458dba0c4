# The README's two commands in a container. They use the CPU unless you build with `--build-arg UV_TORCH_BACKEND=auto`:
#   docker build --tag attnfd .
#   docker run --volume attnfd:/attnfd attnfd                         # make repro; the volume keeps the results
#   docker run --volume attnfd:/attnfd --network host attnfd make ui  # http://127.0.0.1:5000
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /attnfd
COPY . .
ARG UV_TORCH_BACKEND=cpu
ENV UV_TORCH_BACKEND=$UV_TORCH_BACKEND
RUN make env
CMD ["make", "repro"]
