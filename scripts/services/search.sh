#!/usr/bin/env bash
# Runs a real Elasticsearch or OpenSearch on 127.0.0.1, for experiments and for the
# tests. Its data, logs and settings are in DIR.
#
#   scripts/services/search.sh start KIND DIR [--secure]
#   scripts/services/search.sh stop DIR
#
# KIND is elasticsearch7, elasticsearch8 or opensearch2. DIR/url contains the address.
# --secure (only Elasticsearch) turns on logins and TLS. DIR/ca.pem is the new authority
# of the certificate. The user `admin` may do everything, the user `reader` may only
# read. DIR/password holds the password of both.
#
# SETTINGS adds lines to the service's settings, PORT sets the port, and HEAP sets the
# size of its memory (512m).
#
# Needs a JDK of version 17 or newer, Maven and curl; --secure also needs openssl and
# python3. As root on Debian, this script installs the missing packages. The servers are
# the builds for the makers' own integration tests. Most of their modules are missing,
# so they have no ingest processors and no scripts. Each server is fetched once, into
# SERVICES_HOME (~/.cache/rv-services, or /var/tmp/rv-services for root).
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd)

fail() {
  echo "search.sh: $1" >&2
  exit "${2:-1}"
}

# need COMMAND PACKAGE
need() {
  command -v "$1" > /dev/null && return
  if [[ $(id --user) == 0 ]] && command -v apt-get > /dev/null; then
    echo "search.sh: installing $2" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes "$2"; } > /dev/null
  else
    fail "$1 is missing; install it (Debian: $2)"
  fi
}

# Stops the service in the folder $1, if there is one, and waits for its end.
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

# Prints the folder of a server, and fetches the server if it is missing: GROUP ARTIFACT
# VERSION.
unpacked() {
  local home=${SERVICES_HOME:-}
  if [[ -z $home ]]; then
    # The servers refuse to run as root, so another user must be able to read the
    # folder.
    [[ $(id --user) == 0 ]] && home=/var/tmp/rv-services || home=$HOME/.cache/rv-services
  fi
  if [[ ! -d $home/$2-$3 ]]; then
    echo "search.sh: fetching $2 $3" >&2
    mkdir --parents "$home"
    local into
    into=$(mktemp --directory "$home/new-XXXXXX")
    # Maven runs in that folder because it leaves a file behind.
    (
      cd "$into"
      mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.6.1:unpack \
        "-Dartifact=$1:$2:$3:zip" "-DoutputDirectory=$into" >&2
    )
    chmod +x "$into/$2-$3"/bin/*
    if [[ $2 == elasticsearch && $3 == 8.* ]]; then add_missing "$into/$2-$3" "$3"; fi
    chmod --recursive a+rX "$into/$2-$3"
    # The rename is the last step, so that an existing folder is always complete.
    mv "$into/$2-$3" "$home/"
    rm --recursive --force "$into"
  fi
  echo "$home/$2-$3"
}

# Adds two modules that the test build of Elasticsearch 8 lacks: the answer to `GET /`,
# and the text analysis that API keys need.
add_missing() {
  local plugin=$1/plugins/missing classes
  classes=$(mktemp --directory)
  mkdir --parents "$plugin"
  javac -nowarn -cp "$1/lib/*" -d "$classes" "$here/elasticsearch8/MissingPlugin.java"
  jar --create --file "$plugin/missing.jar" -C "$classes" services
  rm --recursive --force "$classes"
  sed "s/VERSION/$2/" "$here/elasticsearch8/plugin-descriptor.properties" > "$plugin/plugin-descriptor.properties"
}

start() {
  local kind=$1 dir=$2 secure=$3 group=distribution.integ-test-zip artifact port version
  case $kind in
    elasticsearch7) group=org.elasticsearch.$group artifact=elasticsearch version=7.17.29 port=19207 ;;
    elasticsearch8) group=org.elasticsearch.$group artifact=elasticsearch version=8.19.21 port=19208 ;;
    opensearch2) group=org.opensearch.$group artifact=opensearch version=2.19.6 port=19212 ;;
    *) fail "KIND is elasticsearch7, elasticsearch8 or opensearch2, not $kind" 2 ;;
  esac
  [[ $secure == no || $artifact == elasticsearch ]] || fail "$kind does not support --secure" 2
  port=${PORT:-$port}
  need curl curl
  need javac openjdk-17-jdk-headless
  need mvn maven
  local home java scheme=http
  home=$(unpacked "$group" "$artifact" "$version")
  java=$(dirname "$(dirname "$(readlink --canonicalize "$(command -v javac)")")")
  mkdir --parents "$dir"
  dir=$(cd "$dir" && pwd)
  stop "$dir"
  mkdir --parents "$dir/config" "$dir/tmp" "$dir/logs" "$dir/data"
  cp --recursive "$home/config/." "$dir/config/"
  # The paths are relative to the server's folder, which this script must not write to.
  sed --in-place "s|\blogs/|$dir/logs/|; s|=data\$|=$dir/data|" "$dir/config/jvm.options"
  {
    printf '%s: %s\n' cluster.name rv node.name node-1 network.host 127.0.0.1 \
      http.port "$port" transport.port "$((port + 100))" discovery.type single-node \
      path.data "$dir/data" path.logs "$dir/logs" \
      cluster.routing.allocation.disk.threshold_enabled false
    if [[ $artifact == elasticsearch ]]; then
      [[ $kind == elasticsearch7 ]] || echo 'xpack.security.autoconfiguration.enabled: false'
      if [[ $secure == yes ]]; then
        printf 'xpack.security.%s\n' 'enabled: true' 'transport.ssl.enabled: false' \
          'http.ssl.enabled: true' 'http.ssl.key: node.key' 'http.ssl.certificate: node.pem' \
          'authc.api_key.enabled: true'
      else
        echo 'xpack.security.enabled: false'
      fi
    fi
    printf '%s\n' "${SETTINGS:-}"
  } > "$dir/config/$artifact.yml"
  if [[ $secure == yes ]]; then
    scheme=https
    [[ -f $dir/ca.pem ]] || make_secrets "$dir"
    cp "$dir/node.key" "$dir/node.pem" "$dir/config/"
    echo 'reader: { cluster: [monitor], indices: [{ names: ["*"], privileges: [read] }] }' > "$dir/config/roles.yml"
    local hash
    hash=$(hashed "$dir/password")
    printf '%s\n' "admin:$hash" "reader:$hash" > "$dir/config/users"
    printf '%s\n' superuser:admin reader:reader > "$dir/config/users_roles"
  fi
  local run=()
  if [[ $(id --user) == 0 ]]; then
    chown --recursive nobody:nogroup "$dir"
    run=(runuser --user nobody --)
  fi
  local options="-Xms${HEAP:-512m} -Xmx${HEAP:-512m}" variable=${artifact^^}
  [[ $artifact == elasticsearch ]] && variable=ES
  setsid "${run[@]}" env "HOME=$dir/tmp" "ES_TMPDIR=$dir/tmp" "OPENSEARCH_TMPDIR=$dir/tmp" \
    "ES_JAVA_HOME=$java" "OPENSEARCH_JAVA_HOME=$java" "${variable}_PATH_CONF=$dir/config" \
    "${variable}_JAVA_OPTS=$options" \
    "$home/bin/$artifact" --pidfile "$dir/server.pid" > "$dir/log" 2>&1 < /dev/null &
  local launched=$! answer=()
  echo "$scheme://127.0.0.1:$port" > "$dir/url"
  [[ $secure == yes ]] && answer=(--cacert "$dir/ca.pem")
  for _ in {1..480}; do
    case $(curl --silent --output /dev/null --write-out '%{http_code}' "${answer[@]}" \
      "$(< "$dir/url")/_cluster/health?wait_for_status=yellow&timeout=1s") in
      200 | 401)
        cp "$dir/server.pid" "$dir/pid"
        return
        ;;
    esac
    kill -0 "$launched" 2> /dev/null || break
    sleep 0.25
  done
  kill "$launched" 2> /dev/null || true
  tail --lines=30 "$dir/log" >&2
  fail "$kind did not start"
}

# Makes an authority, its certificate for 127.0.0.1, and a password.
make_secrets() {
  need openssl openssl
  need python3 python3
  (
    cd "$1"
    quiet() { "$@" 2> openssl.log || { cat openssl.log >&2 && exit 1; }; }
    quiet openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 \
      -subj '/CN=rv test authority' -addext 'basicConstraints=critical,CA:TRUE'
    quiet openssl req -newkey rsa:2048 -nodes -keyout node.key -out node.csr -subj /CN=node-1
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\n' > node.ext
    quiet openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out node.pem \
      -days 30 -extfile node.ext
    openssl rand -hex 16 > password
  )
}

# Prints the hash of a password, as the service stores it.
hashed() {
  python3 - "$1" << 'PY'
import base64, hashlib, os, sys
password = open(sys.argv[1]).read().strip().encode()
salt = os.urandom(32)
key = hashlib.pbkdf2_hmac("sha512", password, salt, 10000, 32)
text = lambda data: base64.b64encode(data).decode()
print("{PBKDF2}10000$" + text(salt) + "$" + text(key))
PY
}

case ${1:-} in
  start)
    (($# == 3 || $# == 4)) || fail "start takes KIND DIR [--secure]" 2
    [[ ${4:---secure} == --secure ]] || fail "$4 is unknown; the only flag is --secure" 2
    start "$2" "$3" "$([[ -n ${4:-} ]] && echo yes || echo no)"
    ;;
  stop)
    (($# == 2)) || fail "stop takes DIR" 2
    stop "$2"
    ;;
  *) fail "usage: start KIND DIR [--secure], or stop DIR" 2 ;;
esac
