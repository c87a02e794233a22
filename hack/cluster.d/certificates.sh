# shellcheck shell=bash
# One CA; a client certificate for each component, so that RBAC, the Node authorizer and
# NodeRestriction are what they are elsewhere.

PKI=$CLUSTER_DIR/pki
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

# certificate NAME SUBJECT [SAN]
certificate() {
    [ ! -f "$PKI/$1.crt" ] || return 0
    openssl req -x509 "${new_key[@]}" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -days 365 -subj "$2" \
        -keyout "$PKI/$1.key" -out "$PKI/$1.crt.part" \
        -addext basicConstraints=critical,CA:FALSE \
        -addext extendedKeyUsage=clientAuth,serverAuth ${3:+-addext "subjectAltName=$3"} 2>/dev/null
    mv "$PKI/$1.crt.part" "$PKI/$1.crt"
}

# kubeconfig NAME FILE: with the certificate inside, so that the file can be copied
kubeconfig() {
    (
        umask 077
        cat >"$2" <<END
apiVersion: v1
kind: Config
current-context: svid-csi
clusters:
  - name: svid-csi
    cluster:
      server: https://$CONTROL_PLANE_IP:6443
      certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
      client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
  - name: svid-csi
    context: {cluster: svid-csi, user: $1}
END
    )
}

# client NAME SUBJECT: a certificate and the kubeconfig with it
client() {
    certificate "$1" "$2"
    kubeconfig "$1" "$PKI/$1.kubeconfig"
}

make_certificates() {
    local i node
    mkdir -p "$PKI"
    chmod 700 "$PKI"
    if [ ! -f "$PKI/ca.crt" ]; then
        openssl req -x509 "${new_key[@]}" -days 365 -subj /CN=svid-csi-cluster \
            -addext keyUsage=critical,keyCertSign,cRLSign \
            -keyout "$PKI/ca.key" -out "$PKI/ca.crt.part" 2>/dev/null
        mv "$PKI/ca.crt.part" "$PKI/ca.crt"
    fi
    if [ ! -f "$PKI/service-accounts.pub" ]; then
        openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/service-accounts.key"
        openssl ec -in "$PKI/service-accounts.key" -pubout -out "$PKI/service-accounts.pub" 2>/dev/null
    fi
    certificate apiserver /CN=kube-apiserver \
        "IP:$CONTROL_PLANE_IP,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet
    client admin /O=system:masters/CN=admin
    client kube-controller-manager /CN=system:kube-controller-manager
    client kube-scheduler /CN=system:kube-scheduler
    client kube-proxy /CN=system:kube-proxy
    client coredns /CN=system:coredns
    for ((i = 1; i <= NODES; i++)); do
        node=node-$i
        client "$node" "/O=system:nodes/CN=system:node:$node"
        certificate "$node-serving" "/O=system:nodes/CN=system:node:$node" "IP:$(node_ip "$node"),DNS:$node"
    done
    kubeconfig admin "$CLUSTER_DIR/kubeconfig"
}
