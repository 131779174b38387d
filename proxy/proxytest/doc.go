// Package proxytest has checks and servers on loopback that the tests of several rooms of
// proxy share.
package proxytest
