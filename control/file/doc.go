// Package file reads Gateway objects from a directory of YAML and JSON files and
// watches it.
//
// Every file with the suffix .yaml, .yml or .json counts, except those whose
// name begins with a dot. A file holds any number of documents, each a Gateway,
// a GatewayList, or a List of Gateways.
//
// # Strictness
//
// Two kinds of mistakes are told apart. A structural one (bad syntax, a wrong
// kind, no name, an unknown field, a list where a text should be) refuses its
// document: what it wants cannot be known. A bad value of one field (a CIDR, an
// address, a key) is reported and counts as absent; the rest of the object is
// applied. Either way the report names file, line and field. Unknown fields are
// accepted in metadata, and status.conditions and status.summary are skipped,
// so that an object printed by kubectl is fine. Anchors and aliases are refused:
// they are the way to make a small file expand into a large one.
//
// # Changes
//
// A file is read when it has been quiet for a moment. As long as a file has a
// structural mistake, or cannot be read, or is empty, the Gateways that its
// last good version defined and its present one does not stay in force. Removing
// the file removes them, also when nobody runs. With [Config].Cache that holds
// over a restart of the agent too. Writing a file by renaming a finished one over it is
// the only way that never shows half of it; a write that pauses for longer than
// the quiet time may be seen in two steps.
package file
