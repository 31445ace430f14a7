#!/usr/bin/env bash
# Generates what is generated in the chart: the CRDs' templates from crds/, and the README from values.yaml.
#
#   chart.sh [crds|readme] [CHART_DIR]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-all}
chart=${2:-charts/diego-operator}
tools=${DIEGO_TOOLS_DIR:-$PWD/.tools/bin}

# A CRD as a template: installed and kept as the values say, otherwise as it is.
crd() {
	echo "{{- /* Generated from crds/ by \`hack/chart.sh crds\`; do not edit. */}}"
	echo "{{- if .Values.crds.install }}"
	awk '
		/^#/ || /^---$/ { next }
		/\{\{/ { print FILENAME ": a template can not hold {{" > "/dev/stderr"; exit 1 }
		{ print }
		/^  name: / && !done {
			done = 1
			print "  labels:"
			print "    {{- include \"diego.labels\" (dict \"root\" .) | nindent 4 }}"
			print "  {{- include \"diego.crds.annotations\" . }}"
		}
	' "$1"
	echo "{{- end }}"
}

crds() {
	mkdir -p "$chart/templates/crds"
	rm -f "$chart"/templates/crds/*.yaml
	local file
	for file in crds/*.yaml; do
		crd "$file" >"$chart/templates/crds/$(basename "$file")"
	done
}

readme() {
	"$tools/helm-docs" --log-level warning --chart-search-root "$chart" --sort-values-order file
}

case $what in
crds) crds ;;
readme) readme ;;
all) crds && readme ;;
*)
	echo "usage: chart.sh [crds|readme] [CHART_DIR]" >&2
	exit 2
	;;
esac
