// Package proxytest has checks that the tests of several rooms of proxy share.
package proxytest
