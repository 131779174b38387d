// Package approval decides which certificate requests the controller approves:
// those of the proxy's fronts, for the names of the proxy's Service, and nothing
// else. It is pure; the reconciler reads the requests and writes the verdict.
//
// The signer is the one of kubelets' serving certificates. It signs whatever is
// approved, so what is not to the letter is denied here.
package approval
