# One image for every process of hypereyes.
#   docker build -t hypereyes:0.1.0 .
#   docker build -t hypereyes:0.1.0-cuda --build-arg FEATURES=cuda --target cuda .
FROM docker.io/library/rust:1.92-bookworm AS build
ARG FEATURES=""
WORKDIR /workspace
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/workspace/target \
    cargo build --release --locked -p hypereyes --features "$FEATURES" && cp target/release/hypereyes /hypereyes

# What a GPU needs beside the driver, which the node brings: the compiler of kernels with its headers, and NCCL.
FROM docker.io/nvidia/cuda:13.0.1-devel-ubuntu24.04 AS toolkit
RUN mkdir -p /cuda/lib64 \
    && cp -rL /usr/local/cuda/include /cuda/include \
    && cp -L /usr/local/cuda/lib64/libnvrtc*.so* /cuda/lib64/ \
    && cp -L /usr/lib/x86_64-linux-gnu/libnccl.so.2 /cuda/lib64/libnccl.so

FROM gcr.io/distroless/cc-debian12:nonroot AS cuda
COPY --from=toolkit /cuda /usr/local/cuda
ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build /hypereyes /usr/local/bin/hypereyes
USER 65532:65532
ENTRYPOINT ["hypereyes"]

# Last, so that it is what a build without --target makes.
FROM gcr.io/distroless/cc-debian12:nonroot AS cpu
COPY --from=build /hypereyes /usr/local/bin/hypereyes
USER 65532:65532
ENTRYPOINT ["hypereyes"]
