# shellcheck shell=bash
# The programs that Debian does not have, pinned in hack/tools/*/go.mod and built once per version.

# tool_version TOOL MODULE: as go.mod requires it; needs no Go
tool_version() {
    awk -v module="$2" '$1 == "require" { $1 = $2; $2 = $3 } $1 == module { print $2; exit }' \
        "$here/tools/$1/go.mod"
}

kubernetes_version=$(tool_version kubernetes k8s.io/kubernetes)
coredns_version=$(tool_version coredns github.com/coredns/coredns)
helm_version=$(tool_version helm helm.sh/helm/v4)
KUBERNETES=$CACHE/kubernetes-$kubernetes_version/bin
COREDNS=$CACHE/coredns-$coredns_version/bin/coredns
KUBECTL=$KUBERNETES/kubectl
HELM=$CACHE/helm-$helm_version/bin/helm

# What is to be built: file, module directory, package, linker flags. For another cluster that is
# kubectl alone. Helm has a build of its own, which hack/chart uses as well.
binaries() {
    local minor=${kubernetes_version#v1.} base=k8s.io/component-base/version name
    local flags="-X $base.gitVersion=$kubernetes_version -X $base.gitMajor=1 -X $base.gitMinor=${minor%%.*}"
    echo "$KUBECTL|kubernetes|k8s.io/kubernetes/cmd/kubectl|$flags"
    if ! foreign; then
        for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet; do
            echo "$KUBERNETES/$name|kubernetes|k8s.io/kubernetes/cmd/$name|$flags"
        done
        echo "$COREDNS|coredns|github.com/coredns/coredns|"
    fi
}

build_binaries() {
    local file tool package flags missing=() entry i=0
    while IFS='|' read -r file tool package flags; do
        [ -x "$file" ] || missing+=("$file|$tool|$package|$flags")
    done < <(binaries)
    [ -x "$HELM" ] || "$here/tools/build" helm >/dev/null
    [ ${#missing[@]} -gt 0 ] || return 0

    command -v go >/dev/null || die "Go is needed to build ${#missing[@]} programs: https://go.dev/dl"
    mkdir -p "$CACHE"
    exec 8>"$CACHE/cluster-build.lock"
    flock --nonblock 8 || { echo "cluster: waiting for another build" && flock 8; }
    [ ${#missing[@]} -lt 7 ] || echo "cluster: building ${#missing[@]} programs, once: 15 to 20 minutes on two cores"
    for entry in "${missing[@]}"; do
        IFS='|' read -r file tool package flags <<<"$entry"
        i=$((i + 1))
        [ -x "$file" ] || build_one "$i of ${#missing[@]}" "$file" "$tool" "$package" "$flags"
    done
    exec 8>&-
}

# build_one WHICH FILE TOOL PACKAGE FLAGS: under another name until it is whole
build_one() {
    local which=$1 file=$2 tool=$3 package=$4 flags=$5 began=$SECONDS pid told=0 log
    log=$(dirname "$file").log
    mkdir -p "$(dirname "$file")"
    (cd "$here/tools/$tool" &&
        exec go build -trimpath -buildvcs=false -mod=readonly -gcflags=all=-dwarf=false -ldflags "-s -w $flags" \
            -o "$file.part" "$package") >"$log" 2>&1 8>&- &
    pid=$!
    # The compiler, being in the background, does not get ^C.
    # shellcheck disable=SC2064
    trap "kill $pid 2>/dev/null || true" EXIT
    echo "cluster: building $which: $(basename "$file")"
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        if [ $((SECONDS - began)) -ge $((told + 30)) ]; then
            told=$((SECONDS - began))
            echo "cluster: building $which: $(basename "$file"), $told s"
        fi
    done
    wait "$pid" || { tail -n 20 "$log" >&2 && die "cannot build $(basename "$file"): see $log"; }
    trap - EXIT
    mv "$file.part" "$file"
    echo "cluster: building $which: $(basename "$file"), done in $((SECONDS - began)) s"
}
