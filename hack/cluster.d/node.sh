# shellcheck shell=bash
# A node: a network and a mount namespace held by one process, "machine", and in it containerd,
# kubelet and kube-proxy at their usual paths and ports.

node_dir() { echo "$CLUSTER_DIR/$1"; }
in_node() { nsenter --target "$(pid_of "$1" machine)" --mount --net -- "${@:2}"; }

exec_in_node() {
    require_node "${1:-}"
    [ $# -gt 1 ] || { usage >&2 && exit 64; }
    alive "$1" machine || die "$1 is not running: run '$me up'"
    join "$1" exec
    exec nsenter --target "$(pid_of "$1" machine)" --mount --net -- "${@:2}"
}

# Power on: the namespaces, the cable, containerd with its images.
boot_node() {
    local node=$1
    if ! alive "$node" machine; then
        configure_node "$node"
        pod_groups "$node"
        launch "$node" machine unshare --net --mount --propagation private "$here/cluster.d/machine" "$(node_dir "$node")"
        wait_for 30 "$node" machine test -f "/proc/$(pid_of "$node" machine)/root/run/machine-is-up"
        connect_node "$node"
    fi
    start_containerd "$node"
    wait_for_containerd "$node"
    load_base_images "$node"
}

# connect_node NODE: a cable from its eth0 to the switch, and routes to everybody's pods
connect_node() {
    local node=$1 other i ip
    ip=$(node_ip "$node")
    in_control_plane sh -euc "
        ip link delete $node 2>/dev/null || true
        ip link add $node type veth peer name eth0 netns $(pid_of "$node" machine)
        ip link set $node master br0 up
        ip route replace $(pod_range "$node") via $ip
        [ $node != node-1 ] || ip route replace $SERVICE_RANGE via $ip"
    in_node "$node" sh -euc "
        ip link set lo up
        ip address add $ip/24 dev eth0
        ip link set eth0 up
        ip route add default via $CONTROL_PLANE_IP
        echo 1 >/proc/sys/net/ipv4/ip_forward"
    for ((i = 1; i <= NODES; i++)); do
        other=node-$i
        [ "$other" = "$node" ] || in_node "$node" ip route add "$(pod_range "$other")" via "$(node_ip "$other")"
    done
}

configure_node() {
    local node=$1 dir
    dir=$(node_dir "$node")
    mkdir -p "$dir"/{cni,plugins,opt,sysctl,var/lib/{kubelet,containerd},var/log}
    # kubelet sets these for the whole machine; boot shows it files that already say so.
    printf '%s\n' vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000 >"$dir/sysctls"
    # oom_score_adj below 0 takes a right that a container on CI may lack.
    cat >"$dir/containerd.toml" <<END
version = 2
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp"]
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
END
    cat >"$dir/cni/10-pods.conflist" <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni",
            "ranges": [[{"subnet": "$(pod_range "$node")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
END
    cat >"$dir/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$node-serving.crt
tlsPrivateKeyFile: $PKI/$node-serving.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [$CONTROL_PLANE_IP]
clusterDomain: cluster.local
resolvConf: ""
volumePluginDir: $dir/plugins
# How often a pod is looked at again, and so republished: 1 m by default.
syncFrequency: 10s
maxPods: 200
# Containers are in the cluster's control group, which "down" kills and removes.
cgroupRoot: /$GROUP/$node/pods
cgroupDriver: cgroupfs
cgroupsPerQOS: true
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
# The machine's disk and limits are not this cluster's: no eviction, no image collection.
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
oomScoreAdj: 0
maxOpenFiles: 20000
END
}

# node_daemon NODE NAME COMMAND...
node_daemon() {
    alive "$1" "$2" && return
    launch "$1" "$2" nsenter --target "$(pid_of "$1" machine)" --mount --net -- "${@:3}"
}

start_containerd() {
    node_daemon "$1" containerd containerd --config "$(node_dir "$1")/containerd.toml"
}

start_kubelet() {
    node_daemon "$1" kubelet "$KUBERNETES/kubelet" --config "$(node_dir "$1")/kubelet.yaml" \
        --kubeconfig "$PKI/$1.kubeconfig" --hostname-override "$1" --node-ip "$(node_ip "$1")"
}

start_kube-proxy() {
    node_daemon "$1" kube-proxy "$KUBERNETES/kube-proxy" --kubeconfig "$PKI/kube-proxy.kubeconfig" \
        --hostname-override "$1" --proxy-mode nftables --cluster-cidr "$POD_RANGE" \
        --conntrack-max-per-core 0 --oom-score-adj 0
}

start_node_daemons() {
    start_kubelet "$1"
    start_kube-proxy "$1"
}

wait_for_containerd() { wait_for 60 "$1" containerd in_node "$1" ctr --connect-timeout 2s version; }
# kubelet is asked through the API server, as `kubectl exec` will be.
wait_for_kubelet() {
    wait_for 120 "$1" kubelet admin get --raw "/api/v1/nodes/$1/proxy/healthz"
    wait_for 120 "$1" kubelet node_is_ready "$1"
}
wait_for_kube-proxy() { wait_for 60 "$1" kube-proxy in_node "$1" busybox wget -q -O /dev/null http://127.0.0.1:10256/healthz; }
wait_for_node() {
    wait_for_kubelet "$1"
    wait_for_kube-proxy "$1"
}

node_is_ready() {
    [ "$(admin get node "$1" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

reboot_node() {
    require_node "${1:-}"
    kill_group "$1"
    boot_node "$1"
    start_node_daemons "$1"
    wait_for_node "$1"
}
