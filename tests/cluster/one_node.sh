#!/usr/bin/env bash
# Slurm with this machine as its only node, for tests: one_node.sh up FOLDER PORT PORT | down FOLDER
# Needs root, slurm-wlm and munge. After "up": export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail
action=${1:?up or down}
folder=$(realpath -m "${2:?a folder for state and logs}")

if [ "$action" = down ]; then
  export SLURM_CONF=$folder/slurm.conf
  scancel -u "$(id -un)" 2> /dev/null || true
  for _ in $(seq 200); do
    if [ -z "$(squeue -h 2> /dev/null)" ]; then break; fi
    sleep 0.2
  done
  for daemon in slurmd slurmctld; do
    if ! pid=$(cat "$folder/$daemon.pid" 2> /dev/null); then continue; fi
    kill "$pid" 2> /dev/null || true
    for _ in $(seq 100); do
      if ! kill -0 "$pid" 2> /dev/null; then continue 2; fi
      sleep 0.1
    done
    kill -9 "$pid" 2> /dev/null || true
  done
  exit 0
fi

for program in slurmctld slurmd munged; do
  command -v "$program" > /dev/null || PATH=$PATH:/usr/sbin command -v "$program" > /dev/null || {
    echo "there is no $program: install slurm-wlm and munge" >&2
    exit 1
  }
done
mkdir -p "$folder"/{state,spool} /run/munge /var/log/munge /var/lib/munge
chown munge:munge /run/munge /var/log/munge /var/lib/munge
host=$(hostname -s)
# A requeued job waits until its credential has expired: 120 s by default.
cat > "$folder/slurm.conf" << CONF
ClusterName=onenode
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${3:?two free ports}
SlurmdPort=${4:?two free ports}
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
MpiDefault=none
MinJobAge=300
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$(awk '/MemTotal/ {print int($2/1024*0.8)}' /proc/meminfo) State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=60 State=UP
PartitionName=short Nodes=$host MaxTime=5 State=UP
CONF
munge -n > /dev/null 2>&1 || setsid runuser -u munge -- /usr/sbin/munged > /dev/null 2>&1
export SLURM_CONF=$folder/slurm.conf
/usr/sbin/slurmctld
/usr/sbin/slurmd
for _ in $(seq 100); do
  if sinfo -h -o %T 2> /dev/null | grep -q idle; then exit 0; fi
  sleep 0.2
done
echo "the node did not become idle: see $folder/*.log" >&2
exit 1
