#!/usr/bin/env bash
# Makes the certificates that the tests of Consul's Go client read from the folders beside theirs: an authority, a server of
# the name consul.test, and a client, in the folder given. They are made anew for each run and are worth nothing.
set -euo pipefail
cd "$1"

authority() { # name
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$1.key" -out "$1.crt" 2>/dev/null
}

signed() { # authority, name, subject's other names, what it may be used for
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$2.key" -out "$2.csr" 2>/dev/null
  printf 'subjectAltName=%s\nextendedKeyUsage=%s\nbasicConstraints=CA:FALSE\n' "$3" "$4" >"$2.ext"
  openssl x509 -req -in "$2.csr" -CA "$1.crt" -CAkey "$1.key" -CAcreateserial -days 2 -extfile "$2.ext" \
    -out "$2.crt" 2>/dev/null
  rm "$2.csr" "$2.ext"
}

mkdir -p client_certs hostname ca_path
(
  cd client_certs
  authority rootca
  signed rootca server DNS:consul.test,DNS:localhost,IP:127.0.0.1 serverAuth,clientAuth
  signed rootca client DNS:client.consul.test clientAuth
)
(
  cd hostname
  authority CertAuth
  signed CertAuth Alice DNS:server.dc1.consul serverAuth,clientAuth
)
(
  cd ca_path
  authority cert1
  authority cert2
  rm ./*.key
)
