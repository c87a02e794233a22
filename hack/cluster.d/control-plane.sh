# shellcheck shell=bash
# etcd, the API server and its company, in a network namespace that also is the nodes' switch.

in_control_plane() { nsenter --target "$(pid_of control-plane network)" --net -- "$@"; }
kubectl() { KUBECONFIG=${KUBECONFIG:-$CLUSTER_DIR/kubeconfig} exec_here "$KUBECTL" "$@"; }
admin() { in_control_plane "$KUBECTL" --kubeconfig "$CLUSTER_DIR/kubeconfig" "$@"; }

# exec_here COMMAND...: in a child; exec_in_control_plane replaces this shell
exec_here() { (exec_in_control_plane "$@"); }

exec_in_control_plane() {
    local path enter=()
    [ $# -gt 0 ] || { usage >&2 && exit 64; }
    if ! foreign; then
        require_cluster
        alive control-plane network || die "the cluster is not running: run '$me up'"
        enter=(nsenter --target "$(pid_of control-plane network)" --net --)
        # What is left running in there ends with the cluster.
        join control-plane run
        export KUBECONFIG=$CLUSTER_DIR/kubeconfig
    fi
    build_binaries >&2
    path=$(dirname "$KUBECTL"):$(dirname "$HELM"):$PATH
    export PATH=$path
    exec "${enter[@]}" "$@"
}

control_plane_network() {
    alive control-plane network && return
    launch control-plane network unshare --net sleep infinity
    wait_for 30 control-plane network own_network control-plane network
    in_control_plane sh -euc "
        ip link set lo up
        ip link add br0 type bridge
        ip address add $CONTROL_PLANE_IP/24 dev br0
        ip link set br0 up
        echo 1 >/proc/sys/net/ipv4/ip_forward"
}

# own_network PLACE NAME: has it left the machine's network namespace?
own_network() {
    [ "$(readlink "/proc/$(pid_of "$1" "$2")/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

# control_plane_daemon NAME COMMAND...
control_plane_daemon() {
    alive control-plane "$1" && return
    launch control-plane "$1" nsenter --target "$(pid_of control-plane network)" --net -- "${@:2}"
}

start_control_plane() {
    control_plane_network
    mkdir -p "$CLUSTER_DIR/etcd" "$CLUSTER_DIR/log/control-plane"
    # Metadata only: an audit log must not hold tokens or keys either.
    cat >"$CLUSTER_DIR/audit-policy.yaml" <<'END'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
END
    cat >"$CLUSTER_DIR/Corefile" <<END
.:53 {
    bind $CONTROL_PLANE_IP
    errors
    ready $CONTROL_PLANE_IP:8181
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $PKI/coredns.kubeconfig
    }
    cache 5
}
END
    # A state that nobody needs after a power cut: no fsync.
    control_plane_daemon etcd etcd --data-dir "$CLUSTER_DIR/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
    # Webhooks go to pods, not to Service addresses: there is no kube-proxy here.
    control_plane_daemon kube-apiserver "$KUBERNETES/kube-apiserver" \
        --etcd-servers http://127.0.0.1:2379 \
        --bind-address "$CONTROL_PLANE_IP" --advertise-address "$CONTROL_PLANE_IP" --secure-port 6443 \
        --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
        --client-ca-file "$PKI/ca.crt" --authorization-mode Node,RBAC \
        --enable-admission-plugins NodeRestriction --allow-privileged \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$PKI/service-accounts.pub" \
        --service-account-signing-key-file "$PKI/service-accounts.key" \
        --service-cluster-ip-range "$SERVICE_RANGE" --enable-aggregator-routing \
        --kubelet-client-certificate "$PKI/apiserver-kubelet.crt" \
        --kubelet-client-key "$PKI/apiserver-kubelet.key" \
        --kubelet-certificate-authority "$PKI/ca.crt" \
        --kubelet-preferred-address-types InternalIP \
        --audit-policy-file "$CLUSTER_DIR/audit-policy.yaml" \
        --audit-log-path "$CLUSTER_DIR/log/control-plane/audit.log"
}

start_controllers() {
    control_plane_daemon kube-controller-manager "$KUBERNETES/kube-controller-manager" \
        --kubeconfig "$PKI/kube-controller-manager.kubeconfig" \
        --service-account-private-key-file "$PKI/service-accounts.key" --root-ca-file "$PKI/ca.crt" \
        --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
        --use-service-account-credentials --leader-elect=false --bind-address 127.0.0.1
    control_plane_daemon kube-scheduler "$KUBERNETES/kube-scheduler" \
        --kubeconfig "$PKI/kube-scheduler.kubeconfig" --leader-elect=false --bind-address 127.0.0.1
    control_plane_daemon coredns "$COREDNS" -conf "$CLUSTER_DIR/Corefile"
}

wait_for_control_plane() {
    wait_for 120 control-plane kube-apiserver admin get --raw /readyz
    admin apply --filename "$here/cluster.d/coredns.yaml" >/dev/null
    start_controllers
    # Without it the first pod would be refused.
    wait_for 120 control-plane kube-controller-manager admin --namespace default get serviceaccount default
    wait_for 120 control-plane coredns in_control_plane busybox nslookup kubernetes.default.svc.cluster.local "$CONTROL_PLANE_IP"
}
