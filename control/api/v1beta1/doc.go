// Package v1beta1 holds the Gateway object of raven.openyurt.io/v1beta1 as
// plain structs, field for field as OpenYurt Raven defines it (note the capital
// R of Replicas), with its labels, annotations and values, and with the parsers
// of the fields that are text but mean something else.
//
// It knows nothing of Kubernetes' machinery, so that an agent that reads its
// Gateways from a directory stays small. It does not decode YAML either; that
// is [corax/control/file].
package v1beta1
