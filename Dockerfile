# A compute node, or any other part of Millrace, in a container. The base is not pulled: build it from Debian's packages first.
#   sudo sh tools/image.sh && docker build -t millrace .
# How to run it, and which privileges buy what: docs/container.md.
FROM scratch
ADD out/image/root.tar /
ENV PATH=/opt/millrace:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    MILLRACE_HOME=/var/lib/millrace \
    LANG=C.UTF-8
VOLUME /var/lib/millrace
EXPOSE 9000
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/millrace/millrace"]
