# shellcheck shell=bash
# Two images made of Debian's static busybox: localhost/pause:1, which every pod needs, and
# localhost/busybox:1 for trying things out.

IMAGES=$CLUSTER_DIR/images

# docker_archive NAME ROOT COMMAND-JSON: ROOT's files as an image of one layer
docker_archive() {
    local work layer
    work=$(mktemp -d "$IMAGES/work.XXXXXX")
    tar --create --file "$work/layer.tar" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        --directory "$2" .
    layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    cat >"$work/config.json" <<END
{"architecture": "$(dpkg --print-architecture)", "os": "linux", "config": {"Cmd": $3, "Env": ["PATH=/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
END
    echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"localhost/$1:1\"], \"Layers\": [\"layer.tar\"]}]" \
        >"$work/manifest.json"
    tar --create --file "$work/image.tar" --directory "$work" manifest.json config.json layer.tar
    mv "$work/image.tar" "$IMAGES/$1.tar"
    rm -r "$work"
}

make_images() {
    local root=$IMAGES/root
    [ ! -f "$IMAGES/busybox.tar" ] || return 0
    mkdir -p "$root"/{bin,etc,tmp,proc,sys,dev}
    chmod 1777 "$root/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    docker_archive pause "$root" '["/bin/busybox", "sleep", "2147483647"]'
    busybox --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    docker_archive busybox "$root" '["/bin/sh"]'
    rm -r "$root"
}

# By stdin, for a node need not see the file.
import_image() { in_node "$1" ctr --namespace k8s.io images import - <"$2"; }

load_base_images() {
    local name
    for name in pause busybox; do
        [ -n "$(in_node "$1" ctr --namespace k8s.io images list --quiet "name==localhost/$name:1")" ] ||
            import_image "$1" "$IMAGES/$name.tar" >/dev/null
    done
}

load_images() {
    local file i
    [ $# -gt 0 ] || { usage >&2 && exit 64; }
    for file in "$@"; do
        [ -f "$file" ] || die "no such file: $file"
        for ((i = 1; i <= NODES; i++)); do
            import_image "node-$i" "$file" | sed "s/^/node-$i: /"
        done
    done
}
