# The image: one static binary and the certificate authorities that callbacks by https trust; no shell, not root.
#
# `make image` makes the context (target/image/context) and builds this with docker, podman or buildah, whichever is there.
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="diego-operator" \
      org.opencontainers.image.description="Cells, LRPs and Tasks on Kubernetes: the work of a lost Cell runs elsewhere about five seconds later" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY diego /diego
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/diego"]
