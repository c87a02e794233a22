csi.svid.dev/ttl=90s
csi.svid.dev/key-algorithm=ecdsa-p384
csi.svid.dev/layout=certs.d
fsGroup=1000