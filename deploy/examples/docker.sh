#!/bin/sh
# Docker: an agent without any capability, as an ordinary user, on a read-only root.
# Put in your names and addresses. Without root: the same with podman, or rootless Docker.
#   docker exec corax corax status --socket /var/lib/corax/agent.sock
set -eu
image=${IMAGE:-corax:0.1.0}
state="--volume corax-state:/var/lib/corax"

# Once: the public key for this node's Gateway.
docker run --rm $state "$image" key --state-dir /var/lib/corax/state

# The host's network: what is to be reached are the containers and machines that the
# host reaches, and a second NAT would be in the way of direct paths.
exec docker run --detach --name corax --restart unless-stopped --network host \
  --user 65532:65532 --cap-drop ALL --security-opt no-new-privileges --read-only \
  --ulimit nofile=65536:65536 --memory 256m \
  $state --volume /etc/corax/gateways:/etc/corax/gateways:ro \
  "$image" agent --node-name site-1 --node-ip 192.168.1.10 --gateways /etc/corax/gateways \
  --state-dir /var/lib/corax/state --socket /var/lib/corax/agent.sock --datapath netstack --uapi=false
