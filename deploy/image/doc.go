// Command image makes the container image of Corax without a container engine:
// an OCI image layout in one tar file, with one image per architecture.
//
// The image is made from nothing: the static program, the certificate
// authorities that Mozilla trusts (from a Go module, so the same on every
// machine), and the few files that a program expects of a system. There is no
// shell. It runs as uid 65532 unless the pod says otherwise.
//
// Same programs in, same bytes out: times are those of the commit, owners and
// order are fixed. Where a registry is at hand any tool that reads OCI layouts
// pushes the file; a node's containerd imports it.
//
// See the OCI image specification 1.1 for the formats.
package main
