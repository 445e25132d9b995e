// Package storetest checks and troubles object stores.
//
// Run is the contract of remote.Store as a series of short stories; every
// store runs it. Faulty wraps a store and makes scripted calls fail in the
// ways that stores and networks really fail, and gives crash tests a place to
// die at; Gate holds calls back there. Counting wraps a store and tells what a
// program asked of it.
// StartGateway runs a real S3 server on the loopback interface.
//
// The package is for tests only.
package storetest
