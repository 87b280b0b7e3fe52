# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Sourced: a Slurm of its own on this machine, with virtual nodes n1, n2, ... for tests.
#     cluster_start FOLDER NODES   exports SLURM_CONF; 1 if it does not come up
#     cluster_stop FOLDER
# Needs root and slurmctld, slurmd, srun; Debian: slurmctld slurmd slurm-client
# slurm-wlm-basic-plugins libpmix-dev (the PMIx plugin opens libpmix.so). All ports are
# on this machine's loopback address.

cluster_possible() {
    [ "$(id -u)" -eq 0 ] || return 1
    for program in slurmctld slurmd sbatch srun scontrol; do
        command -v "$program" >/dev/null || return 1
    done
    ldconfig -p | grep -q 'libpmix\.so '
}

cluster_config() {
    cat <<END
ClusterName=dusk
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool-%n
TmpFS=$1/tmp-%n
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd-%n.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/slurmd-%n.log
TaskProlog=$1/task_prolog.sh
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=pmix
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
JobRequeue=1
NodeName=n[1-$2] NodeHostName=localhost NodeAddr=127.0.0.1 Port=[$((port + 2))-$((port + 1 + $2))] CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

cluster_start() {
    port=$((20000 + $$ % 20000))
    mkdir -p "$1/state" || return 1
    # Nodes of one host share its name, and a requeued job its id: Open MPI's shared memory
    # then meets segments that are not its own, and crashes. The ranks talk over TCP.
    cat >"$1/task_prolog.sh" <<END
#!/bin/sh
mkdir -p "$1/session-\$SLURMD_NODENAME"
echo "export OMPI_MCA_orte_tmpdir_base=$1/session-\$SLURMD_NODENAME"
echo "export OMPI_MCA_btl=self,tcp"
echo "export OMPI_MCA_btl_tcp_if_include=lo"
END
    chmod +x "$1/task_prolog.sh"
    echo 'CgroupPlugin=cgroup/v1' >"$1/cgroup.conf"
    cluster_config "$1" "$2" >"$1/slurm.conf"
    export SLURM_CONF="$1/slurm.conf"
    slurmctld -c -f "$SLURM_CONF" || return 1
    node=1
    while [ $node -le "$2" ]; do
        mkdir -p "$1/spool-n$node" "$1/tmp-n$node"
        slurmd -f "$SLURM_CONF" -N n$node || return 1
        node=$((node + 1))
    done
    tries=0
    until [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = "$2" ]; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || return 1
        sleep 0.5
    done
}

cluster_stop() {
    for pid in "$1"/*.pid; do
        [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null
    done
    sleep 1
}
