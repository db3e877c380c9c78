#!/usr/bin/env bash
# Checks the Helm chart: helm lint, and for the values in this folder the rendered manifests; and that values that cannot work are
# refused. Run by `make deploy-check`; `.ci/setup check` installs helm and the validator.
set -euo pipefail
ci=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
chart=$(dirname "$ci")
say() { printf 'helm: %s\n' "$*" >&2; }
rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT

kube=(--kube-version 1.35.0) # a helm that is built from source assumes one of 2020

# helm prints a line for each symbolic link that it follows.
quiet() { "$@" 2> >(grep -v 'found symbolic link' >&2 || true); }

for values in "$ci"/*.yaml; do
  quiet helm lint --strict --quiet "${kube[@]}" --values "$values" "$chart"
  quiet helm template release "$chart" "${kube[@]}" --namespace shop --values "$values" >"$rendered"
  python3 "$ci/validate.py" "$(basename "$values" .yaml)" <"$rendered"
done

# refuse MESSAGE ARGUMENT...: the minimal values with these arguments must be refused, with this text.
refuse() {
  local message=$1 printed
  shift
  if printed=$(helm template release "$chart" "${kube[@]}" --values "$ci/minimal.yaml" "$@" 2>&1); then
    say "not refused: $*"
    exit 1
  fi
  grep -qF -- "$message" <<<"$printed" || { say "refused without '$message': $* : $printed"; exit 1; }
}
refuse 'set http.tokenSecret.name' --set http.tokenSecret.name=
refuse 'set config to your foretell.toml' --set config=
refuse 'terminationGracePeriodSeconds must be at least' --set drainSeconds=20
refuse 'replicaCounts' --set replicaCounts=3
refuse 'set autoscaling.consumerGroup' --set autoscaling.enabled=true,autoscaling.bootstrapServers=kafka:9092
refuse 'secrets' --set 'secrets[0].name=http,secrets[0].secretName=x'
