# shellcheck shell=bash
# cert-manager's own controller and webhook, as processes beside the API server. Its approver is off,
# and so is its right to approve, as with `disableAutoApproval: true` of its chart.

CERT_MANAGER_PORT=10260

start_cert_manager() {
    local programs
    programs=$("$here/tools/build" cert-manager)
    certificate cert-manager-webhook /CN=cert-manager-webhook "IP:$CONTROL_PLANE_IP"
    client cert-manager \
        /O=system:serviceaccounts/O=system:serviceaccounts:cert-manager/CN=system:serviceaccount:cert-manager:cert-manager
    client cert-manager-webhook-client \
        /O=system:serviceaccounts/O=system:serviceaccounts:cert-manager/CN=system:serviceaccount:cert-manager:cert-manager-webhook
    admin apply --server-side --filename "$programs/crds" >/dev/null
    admin wait --for=condition=Established --timeout=60s --filename "$programs/crds" >/dev/null
    sed -e "s/CA_BUNDLE/$(base64 -w0 "$PKI/ca.crt")/" -e "s/ADDRESS/$CONTROL_PLANE_IP:$CERT_MANAGER_PORT/" \
        "$here/cluster.d/cert-manager.yaml" >"$CLUSTER_DIR/cert-manager.yaml"
    admin apply --filename "$CLUSTER_DIR/cert-manager.yaml" >/dev/null
    control_plane_daemon cert-manager-webhook "$programs/bin/webhook" \
        --kubeconfig "$PKI/cert-manager-webhook-client.kubeconfig" --secure-port "$CERT_MANAGER_PORT" \
        --tls-cert-file "$PKI/cert-manager-webhook.crt" --tls-private-key-file "$PKI/cert-manager-webhook.key"
    control_plane_daemon cert-manager-controller "$programs/bin/controller" \
        --kubeconfig "$PKI/cert-manager.kubeconfig" --leader-elect=false \
        --cluster-resource-namespace cert-manager --controllers='*,-certificaterequests-approver'
    wait_for 60 control-plane cert-manager-webhook \
        admin create --dry-run=server --filename "$here/cluster.d/cert-manager-probe.yaml"
}
