# shellcheck shell=bash

# Everything is found by the control group, so this also works after a crash and half an `up`.
down() {
    [ $# -eq 0 ] || { usage >&2 && exit 64; }
    [ "$(id -u)" -eq 0 ] || die "must run as root"
    [ ! -d "$CLUSTER_DIR" ] || [ -z "$(ls -A "$CLUSTER_DIR")" ] || [ -f "$CLUSTER_DIR/settings" ] ||
        die "$CLUSTER_DIR is no cluster's directory: not touched"
    kill_group
    rm -rf --one-file-system "$CLUSTER_DIR"
    local left
    left=$(leftovers)
    [ -z "$left" ] || die "left behind:"$'\n'"$left"
}

leftovers() {
    local file
    for file in /proc/[0-9]*/mountinfo; do
        # The whole path, between blanks or slashes; a process may end while we look.
        if grep -qsF -e " $CLUSTER_DIR/" -e " $CLUSTER_DIR " "$file"; then
            file=${file%/mountinfo}
            echo "process ${file#/proc/} has mounts of the cluster: $(tr '\0' ' ' <"$file/cmdline" || true)"
        fi
    done
    cgroup_mounts | while read -r file; do
        [ ! -d "$file/$GROUP" ] || echo "control group $file/$GROUP"
    done
    [ ! -e "$CLUSTER_DIR" ] || echo "directory $CLUSTER_DIR"
}
