# shellcheck shell=bash
# Names and places, for the other files here.

me=${0#"$PWD/"}
CLUSTER_DIR=$(realpath -m "${CLUSTER_DIR:-/var/tmp/svid-csi-cluster}")
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/svid-csi

die() {
    echo "cluster: $*" >&2
    exit 1
}

# A node has its own /run, /var/lib and /var/log and would not see a state directory there.
case $CLUSTER_DIR/ in
/run/* | /var/lib/* | /var/log/*) die "CLUSTER_DIR must not be under /run, /var/lib or /var/log" ;;
esac

# All of a cluster's processes are in this control group. It follows from the directory's path, so
# that `down` finds them even when the directory is gone.
GROUP=svid-csi-$(basename "$CLUSTER_DIR" | tr -c 'a-zA-Z0-9\n' -)-$(cksum <<<"$CLUSTER_DIR" | cut -d' ' -f1)
# The unified hierarchy, of which cgroup v1 machines have one as well: it can kill a whole group.
UNIFIED=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET || true)

NODES=
if [ -f "$CLUSTER_DIR/settings" ]; then
    # shellcheck source=/dev/null
    . "$CLUSTER_DIR/settings"
fi

# The same addresses in every cluster: they exist only in its own network namespaces.
CONTROL_PLANE_IP=10.88.0.1
SERVICE_RANGE=10.96.0.0/24
POD_RANGE=10.244.0.0/16
node_ip() { echo "10.88.0.$((10 + ${1#node-}))"; }
pod_range() { echo "10.244.${1#node-}.0/24"; }
# A proxy is for the way out; this is none.
NO_PROXY=${NO_PROXY:+$NO_PROXY,}127.0.0.1,localhost,$CONTROL_PLANE_IP/24,$SERVICE_RANGE,$POD_RANGE,.svc,.cluster.local
no_proxy=$NO_PROXY
export NO_PROXY no_proxy

# foreign: is KUBECONFIG that of another cluster?
foreign() {
    [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$CLUSTER_DIR/kubeconfig" ]
}

require_cluster() {
    [ -f "$CLUSTER_DIR/kubeconfig" ] || die "there is no cluster in $CLUSTER_DIR: run '$me up'"
}

require_node() {
    require_cluster
    if ! [[ ${1:-} =~ ^node-[1-9]$ ]] || [ "${1#node-}" -gt "$NODES" ]; then
        die "'${1:-}' is no node; there are $(seq -s ' ' -f 'node-%g' "$NODES")"
    fi
}

require_programs() {
    local program
    [ "$(id -u)" -eq 0 ] || die "must run as root"
    # It has a sentence of its own for what it can't install.
    "$here/../.ci/setup" e2e
    for program in etcd containerd runc nft ip openssl busybox nsenter jq; do
        command -v "$program" >/dev/null || die "$program is missing: run '.ci/setup e2e'"
    done
    [ -x /usr/lib/cni/bridge ] || die "the CNI plugins are missing: run '.ci/setup e2e'"
    [ -n "$UNIFIED" ] ||
        die "no cgroup2 file system: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
    [ "$(uname -r | cut -d. -f1)" -ge 6 ] || die "Linux 6.0 or newer is needed, this is $(uname -r)"
}

print_settings() {
    foreign || require_cluster
    foreign || KUBECONFIG=$CLUSTER_DIR/kubeconfig
    printf '%s=%q\n' KUBECTL "$KUBECTL" HELM "$HELM" KUBECONFIG "$KUBECONFIG" \
        STATE "$CLUSTER_DIR" NODES "$NODES"
}
