// The custom resources that the chart can make: their definitions are in these modules.
// Only downloaded, never built, so `go mod tidy` would leave nothing.
module github.com/svid-csi/svid-csi/tests/chart/crds

go 1.26.0

require (
	github.com/openshift/api v0.0.0-20260728120005-8ba0b25b0f29
	github.com/prometheus-operator/prometheus-operator v0.91.0
)
