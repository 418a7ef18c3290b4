#!/usr/bin/env bash
# Runs a real broker on 127.0.0.1, for experiments and for the tests. Its data, logs and
# settings are in DIR.
#
#   scripts/services/brokers.sh start KIND DIR
#   scripts/services/brokers.sh stop DIR
#
# KIND is nats, kafka or pulsar. DIR/address contains HOST:PORT. A broker that is started
# again in the same DIR still has its data. PORT sets the port; Kafka also uses the next
# one, and Pulsar also PORT + 1430.
#
# nats needs nats-server 2.9 or newer (Debian has it). kafka and pulsar need a JDK of
# version 17 or newer, Maven and curl. As root on Debian, this script installs the
# missing packages. Kafka and Pulsar are fetched once, from Maven Central, which Maven
# checks, into SERVICES_HOME (~/.cache/rv-services, or /var/tmp/rv-services for root).
set -euo pipefail
shopt -s inherit_errexit

kafka_version=4.4.0
pulsar_version=4.0.8

fail() {
  echo "brokers.sh: $1" >&2
  exit "${2:-1}"
}

# need COMMAND PACKAGE
need() {
  command -v "$1" > /dev/null && return
  if [[ $(id --user) == 0 ]] && command -v apt-get > /dev/null; then
    echo "brokers.sh: installing $2" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes "$2"; } > /dev/null
  else
    fail "$1 is missing; install it (Debian: $2)"
  fi
}

# Stops the broker in the folder $1, if there is one, and waits for its end.
stop() {
  [[ -f $1/pid ]] || return 0
  local pid
  pid=$(< "$1/pid")
  kill "$pid" 2> /dev/null || true
  for _ in {1..300}; do
    kill -0 "$pid" 2> /dev/null || { rm --force "$1/pid" && return 0; }
    sleep 0.1
  done
  kill -KILL "$pid" 2> /dev/null || true
  rm --force "$1/pid"
}

services_home() {
  if [[ -n ${SERVICES_HOME:-} ]]; then
    echo "$SERVICES_HOME"
  elif [[ $(id --user) == 0 ]]; then
    echo /var/tmp/rv-services
  else
    echo "$HOME/.cache/rv-services"
  fi
}

# Runs Maven with a project that has the XML $1, for the goal of the other arguments.
maven() {
  local project=$1 folder
  shift
  folder=$(mktemp --directory)
  echo "<project><modelVersion>4.0.0</modelVersion><groupId>rv</groupId><artifactId>services</artifactId><version>1</version><packaging>pom</packaging>$project</project>" > "$folder/pom.xml"
  mvn --batch-mode --quiet --file "$folder/pom.xml" "$@" >&2
  rm --recursive --force "$folder"
}

# Prints the folder of Kafka's libraries, and fetches them if they are missing.
kafka_libraries() {
  local home into
  home=$(services_home)/kafka-$kafka_version
  if [[ ! -d $home ]]; then
    echo "brokers.sh: fetching Kafka $kafka_version" >&2
    mkdir --parents "$(dirname "$home")"
    into=$(mktemp --directory "$home-XXXXXX")
    maven "<dependencies>
      <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
      <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
    </dependencies>" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      "-DoutputDirectory=$into" -DincludeScope=runtime
    # The rename is the last step, so that an existing folder is always complete.
    mv "$into" "$home"
  fi
  echo "$home"
}

# Prints the folder of Pulsar, and fetches it if it is missing.
pulsar_home() {
  local home into
  home=$(services_home)/apache-pulsar-$pulsar_version
  if [[ ! -d $home ]]; then
    echo "brokers.sh: fetching Pulsar $pulsar_version" >&2
    mkdir --parents "$(dirname "$home")"
    into=$(mktemp --directory "$home-XXXXXX")
    # Maven runs in that folder because it leaves a file behind.
    (
      cd "$into"
      mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.6.1:unpack \
        "-Dartifact=org.apache.pulsar:pulsar-server-distribution:$pulsar_version:tar.gz:bin" \
        "-DoutputDirectory=$into" >&2
    )
    mv "$into/apache-pulsar-$pulsar_version" "$home"
    rm --recursive --force "$into"
  fi
  echo "$home"
}

# launch DIR COMMAND...: starts a server in the background. Closes what the caller has
# open, such as a lock.
launch() {
  local dir=$1
  shift
  setsid "$@" >> "$dir/log" 2>&1 < /dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
  echo $! > "$dir/pid"
}

# await DIR SECONDS COMMAND...: waits until the command succeeds.
await() {
  local dir=$1 seconds=$2
  shift 2
  for ((turn = 0; turn < seconds * 5; turn++)); do
    "$@" > /dev/null 2>&1 && return
    kill -0 "$(< "$dir/pid")" 2> /dev/null || break
    sleep 0.2
  done
  tail --lines=30 "$dir/log" >&2
  stop "$dir"
  fail "the broker in $dir did not start"
}

start_nats() {
  local dir=$1 port=$2
  need nats-server nats-server
  launch "$dir" nats-server --addr 127.0.0.1 --port "$port" --jetstream --store_dir "$dir/data"
  await "$dir" 20 bash -c "exec 3<> /dev/tcp/127.0.0.1/$port && head --lines=1 <&3"
}

start_kafka() {
  local dir=$1 port=$2 libraries id
  need javac openjdk-17-jdk-headless
  need mvn maven
  libraries=$(kafka_libraries)
  local java=(java -Xms128m -Xmx512m -XX:+UseSerialGC -Djava.net.preferIPv4Stack=true
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libraries/*")
  # The last two settings make a killed broker come back in 6 to 8 s instead of 13 s.
  printf '%s\n' process.roles=broker,controller node.id=1 \
    "controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))" \
    "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))" \
    "advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))" \
    controller.listener.names=CONTROLLER inter.broker.listener.name=PLAINTEXT \
    listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT \
    "log.dirs=$dir/data" "num.partitions=${PARTITIONS:-1}" auto.create.topics.enable=true \
    offsets.topic.num.partitions=1 offsets.topic.replication.factor=1 \
    transaction.state.log.num.partitions=1 transaction.state.log.replication.factor=1 \
    transaction.state.log.min.isr=1 share.coordinator.state.topic.num.partitions=1 \
    share.coordinator.state.topic.replication.factor=1 share.coordinator.state.topic.min.isr=1 \
    group.initial.rebalance.delay.ms=0 log.segment.bytes=67108864 \
    log.cleaner.dedupe.buffer.size=8388608 num.network.threads=2 num.io.threads=2 \
    broker.session.timeout.ms=3000 broker.heartbeat.interval.ms=500 > "$dir/server.properties"
  if [[ ! -f $dir/data/meta.properties ]]; then
    id=$("${java[@]}" kafka.tools.StorageTool random-uuid)
    "${java[@]}" kafka.tools.StorageTool format --cluster-id "$id" --standalone \
      --config "$dir/server.properties" > "$dir/log" 2>&1 || fail "$(tail --lines=5 "$dir/log")"
  fi
  launch "$dir" "${java[@]}" kafka.Kafka "$dir/server.properties"
  await "$dir" 60 bash -c "exec 3<> /dev/tcp/127.0.0.1/$port"
}

start_pulsar() {
  local dir=$1 port=$2 home setting
  need curl curl
  need javac openjdk-17-jdk-headless
  need mvn maven
  home=$(pulsar_home)
  # The shipped file has no newline at its end.
  { cat "$home/conf/standalone.conf" && echo; } > "$dir/standalone.conf"
  # The last three settings are waits that make an idle topic slow by default.
  for setting in bindAddress=127.0.0.1 advertisedAddress=127.0.0.1 "brokerServicePort=$port" \
    "webServicePort=$((port + 1430))" managedLedgerCacheSizeMB=128 \
    dbStorage_writeCacheMaxSizeMb=64 dbStorage_readAheadCacheMaxSizeMb=32 \
    dbStorage_rocksDB_blockCacheSize=33554432 numIOThreads=2 numHttpServerThreads=4 \
    listeningInterface=lo allowLoopback=true managedLedgerNewEntriesCheckDelayInMillis=0 \
    journalMaxGroupWaitMSec=0 activeConsumerFailoverDelayTimeMillis=0; do
    sed --in-place "/^${setting%%=*}=/d" "$dir/standalone.conf"
    echo "$setting" >> "$dir/standalone.conf"
  done
  cd "$home"
  launch "$dir" env "PULSAR_STANDALONE_CONF=$dir/standalone.conf" "PULSAR_LOG_DIR=$dir" \
    PULSAR_LOG_APPENDER=Console PULSAR_GC=-XX:+UseG1GC \
    'PULSAR_MEM=-Xms256m -Xmx1g -XX:MaxDirectMemorySize=1g' \
    'PULSAR_GC_LOG=-Xlog:disable -Xlog:all=error:stderr' \
    bin/pulsar standalone --no-functions-worker --no-stream-storage -a 127.0.0.1 \
    --metadata-dir "$dir/metadata" --bookkeeper-dir "$dir/bookkeeper"
  await "$dir" 90 curl --silent --fail --max-time 5 \
    "http://127.0.0.1:$((port + 1430))/admin/v2/brokers/health"
}

start() {
  local kind=$1 dir=$2 port
  case $kind in
    nats) port=14222 ;;
    kafka) port=19092 ;;
    pulsar) port=16650 ;;
    *) fail "KIND is nats, kafka or pulsar, not $kind" 2 ;;
  esac
  port=${PORT:-$port}
  mkdir --parents "$dir"
  dir=$(cd "$dir" && pwd)
  stop "$dir"
  "start_$kind" "$dir" "$port"
  echo "127.0.0.1:$port" > "$dir/address"
}

case ${1:-} in
  start)
    (($# == 3)) || fail "start takes KIND DIR" 2
    start "$2" "$3"
    ;;
  stop)
    (($# == 2)) || fail "stop takes DIR" 2
    stop "$2"
    ;;
  *) fail "usage: start KIND DIR, or stop DIR" 2 ;;
esac
