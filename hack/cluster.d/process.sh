# shellcheck shell=bash
# Processes in control groups: one group for each daemon, under one for its place (control-plane or
# a node), under one for the cluster. A pid counts only while it is in its group, so an old pid file
# never points at somebody else's process.

group_of() { echo "$UNIFIED/$GROUP/$1${2:+/$2}"; }
log_of() { echo "$CLUSTER_DIR/log/$1/$2.log"; }
pid_of() { cat "$CLUSTER_DIR/run/$1/$2.pid"; }

# join PLACE NAME: this shell and what it starts
join() {
    mkdir -p "$(group_of "$1" "$2")"
    echo "$BASHPID" >"$(group_of "$1" "$2")/cgroup.procs"
}

# alive PLACE NAME
alive() {
    [ -s "$CLUSTER_DIR/run/$1/$2.pid" ] &&
        grep -qsx "$(pid_of "$1" "$2")" "$(group_of "$1" "$2")/cgroup.procs"
}

# launch PLACE NAME COMMAND...: in a session of its own, away from ^C and the terminal. The shell
# makes a background command ignore two signals, and containers would inherit that.
launch() {
    local place=$1 name=$2
    shift 2
    mkdir -p "$CLUSTER_DIR/run/$place" "$CLUSTER_DIR/log/$place"
    (
        join "$place" "$name"
        setsid env --default-signal=INT,QUIT "$@" >>"$(log_of "$place" "$name")" 2>&1 </dev/null 9>&- &
        echo $! >"$CLUSTER_DIR/run/$place/$name.pid"
    )
}

# stop_process PLACE NAME SIGNAL: only that process, and wait for its end
stop_process() {
    local place=$1 name=$2 signal=$3 i
    alive "$place" "$name" || return 0
    kill -s "$signal" "$(pid_of "$place" "$name")"
    for ((i = 0; i < 300; i++)); do
        alive "$place" "$name" || return 0
        sleep 0.1
    done
    die "$name of $place still runs 30 s after SIG$signal: see $(log_of "$place" "$name")"
}

cgroup_mounts() { findmnt --noheadings --list --types cgroup,cgroup2 --output TARGET; }

# pod_groups NODE: in every hierarchy, as kubelet wants to find them
pod_groups() {
    local hierarchy group controller
    while read -r hierarchy; do
        mkdir -p "$hierarchy/$GROUP/$1/pods"
    done < <(cgroup_mounts)
    # With cgroup v2 alone, a group has only the controllers that those above it hand down.
    if grep -qw memory "$UNIFIED/cgroup.controllers"; then
        for group in "$UNIFIED" "$UNIFIED/$GROUP" "$UNIFIED/$GROUP/$1"; do
            for controller in cpu cpuset memory hugetlb pids; do
                if grep -qw "$controller" "$group/cgroup.controllers"; then
                    echo "+$controller" >"$group/cgroup.subtree_control"
                fi
            done
        done
    fi
}

# kill_group [PLACE]: every process in the group and below it, then the groups of every hierarchy
kill_group() {
    local group hierarchy i
    group=$UNIFIED/$GROUP${1:+/$1}
    if [ -d "$group" ]; then
        echo 1 >"$group/cgroup.kill"
        for ((i = 0; i < 200; i++)); do
            grep -qx 'populated 0' "$group/cgroup.events" && break
            sleep 0.05
        done
    fi
    while read -r hierarchy; do
        group=$hierarchy/$GROUP${1:+/$1}
        for ((i = 0; i < 50; i++)); do
            [ -d "$group" ] || break
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
    done < <(cgroup_mounts)
}

# wait_for SECONDS PLACE NAME CHECK...: until CHECK succeeds; gives up early if the process ends
wait_for() {
    local seconds=$1 place=$2 name=$3 end=$((SECONDS + $1)) why=""
    shift 3
    until "$@" >/dev/null 2>&1; do
        alive "$place" "$name" || why="has ended"
        [ $SECONDS -lt $end ] || why="is not ready after $seconds s"
        if [ -n "$why" ]; then
            tail -n 5 "$(log_of "$place" "$name")" >&2 || true
            die "$name of $place $why: see $(log_of "$place" "$name")"
        fi
        sleep 0.1
    done
}
