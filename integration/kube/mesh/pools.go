//go:build linux

package mesh

import (
	"context"
	"fmt"
	"time"

	"corax/integration/kube/cluster"
)

// poolLabel names the NodePool of a node.
const poolLabel = "apps.openyurt.io/nodepool"

// poolCRD is as much of OpenYurt's NodePool as it takes to store objects as they
// are.
const poolCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: nodepools.apps.openyurt.io}
spec:
  group: apps.openyurt.io
  scope: Cluster
  names: {kind: NodePool, listKind: NodePoolList, plural: nodepools, singular: nodepool, shortNames: [np]}
  versions:
  - name: v1beta2
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Type, type: string, jsonPath: .spec.type}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// addPools makes a NodePool for each edge.
func (w *World) addPools(t cluster.T) {
	t.Helper()
	w.Cluster.ApplyYAML(t, poolCRD)
	for _, d := range w.Domains {
		if d.Hub {
			continue
		}
		pool := fmt.Sprintf("{apiVersion: apps.openyurt.io/v1beta2, kind: NodePool, metadata: {name: %s}, "+
			"spec: {type: Edge, interConnectivity: true}}", d.Name)
		// A kind may be established a moment before all of its API is there.
		cluster.Eventually(t, 30*time.Second, "NodePool "+d.Name, func(context.Context) error {
			out, err := w.Cluster.Kubectl(t, []byte(pool), "apply", "--server-side", "-f", "-")
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
	}
}
