package main

import "golang.org/x/time/rate"

// route is what is special about the way to a store.
type route struct {
	limit *rate.Limiter   // of uploads, in bytes; nil: none
	slow  func(why error) // hears that a call waits for the store
}

// route is the usual one. A store that is slow is news for the person who
// waits, not for a log in which the run ends well.
func (a *app) route() route {
	return route{slow: func(why error) { a.ui.Note("the store does not answer (%v), trying again", why) }}
}
